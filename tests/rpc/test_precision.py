"""Whoever reads an answer learns the precision that made it: spans, trailers, messages, metrics."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helios_contract.serves import PRECISIONS, Precision
from helios_server.engine.request import FinishedEvent, FinishReason, Served, Span, Times
from helios_server.engine.telemetry import ModelInfo
from helios_server.rpc import messages
from helios_server.rpc.openai.answers import TextAnswer
from helios_server.rpc.openai.answers import model as openai_model
from helios_server.telemetry.metrics import Metrics

INFO = ModelInfo("c", "file:///m", "r1", "f", "", "", 6, 6, (), 256, 300, "float16", "auto", "auto", 256)
SERVED = Served("c", "file:///m", "r1", "f", "", 6)


def spans(*precisions: Precision) -> tuple[Span, ...]:
    return tuple(
        Span(
            index,
            replace(SERVED, weight_dtype=precision.weight_dtype, kv_cache_dtype=precision.kv_cache_dtype),
        )
        for index, precision in enumerate(precisions)
    )


def ended(told: tuple[Span, ...]) -> FinishedEvent:
    times = Times(0.0, 0.0, 0.0, 1.0)
    return FinishedEvent("r", 1, FinishReason.STOP, "t", (1,), "", 3, 0, told, 0.5, 6.0, 0, times)


def test_spans_are_read_as_they_were_told() -> None:
    told = spans(*PRECISIONS)
    metadata = dict(messages.trailing("chat", INFO, told))
    entries = json.loads(metadata["helios-spans"])
    assert messages.read_spans(entries) == told
    assert "weightDtype" not in entries[0]
    assert "kvCacheDtype" not in entries[0]
    assert (entries[2]["weightDtype"], entries[2]["kvCacheDtype"]) == ("int8", "int8")
    assert (metadata["helios-weight-dtype"], metadata["helios-kv-cache-dtype"]) == ("int4", "int8")


@pytest.mark.parametrize("info", [INFO, replace(INFO, weight_dtype="int8", kv_cache_dtype="int8")])
def test_without_output_what_serves_is_named(info: ModelInfo) -> None:
    metadata = dict(messages.trailing("chat", info, ()))
    named = metadata["helios-weight-dtype"], metadata["helios-kv-cache-dtype"]
    message, shown = messages.model_info(info, "chat"), openai_model("chat", info, 0)["helios"]
    assert named == (info.weight_dtype, info.kv_cache_dtype)
    assert named == (message.weight_dtype, message.kv_cache_dtype)
    assert named == (shown["weight_dtype"], shown["kv_cache_dtype"])


def test_an_answer_names_the_precision_of_its_last_token() -> None:
    event = ended(spans(Precision(), Precision("int8", "int8")))
    complete = messages.complete(event, "chat", INFO).complete
    assert (complete.weight_dtype, complete.kv_cache_dtype) == ("int8", "int8")
    answer = TextAnswer("r", "chat", lambda: INFO, None, logprobs=False)  # type: ignore[arg-type]
    helios = answer.whole(event, [])["helios"]
    assert (helios["weight_dtype"], helios["kv_cache_dtype"]) == ("int8", "int8")
    assert [span["weight_dtype"] for span in helios["spans"]] == ["auto", "int8"]


def test_a_fingerprint_of_openai_changes_with_the_precision() -> None:
    def fingerprint(info: ModelInfo) -> str:
        answer = TextAnswer("r", "chat", lambda: info, None, logprobs=False)  # type: ignore[arg-type]
        return str(answer.whole(ended(()), [])["system_fingerprint"])

    assert fingerprint(INFO) == "c@r1:6"
    assert fingerprint(replace(INFO, weight_dtype="int8")) == "c@r1:6:int8/auto"


def test_the_gauge_follows_what_serves() -> None:
    metrics = Metrics("chat")
    for precision in (Precision(), Precision("int8", "int8")):
        metrics.serving("c", 6, precision)
        metrics.load(0, 0, 0.0, True)
    lines = [line for line in metrics.render().decode().splitlines() if "precision_info{" in line]
    labels = 'candidate="c",kv_cache_dtype="int8",model_name="chat",weight_dtype="int8"'
    assert lines == [f"helios_precision_info{{{labels}}} 1.0"]
