"""Exit mode `token` at the doors: chosen by hand alone, and what an answer tells of each token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helios_server.engine.request import Span
from helios_server.rpc import messages
from helios_server.serve import parse

from tests.rpc.pods import generate_request, serving
from tests.rpc.test_precision import INFO, SERVED
from tests.rpc.test_serve import told

TOKEN = {"exit_mode": "token", "exit_threshold": 0.8, "exit_layers": (1, 3), "max_batch_size": 4}
BY_HAND = ("--exit-mode", "token", "--exit-threshold", "0.8", "--exit-layers", "1")


async def test_an_answer_tells_each_tokens_depth_and_confidence(tiny: Path) -> None:
    async with serving(tiny, engine={"prefix_caching": False}, **TOKEN) as pod:
        stream = pod.client.generate(generate_request(max_tokens=40))
        chunks = [message.chunk async for message in stream if message.HasField("chunk")]
        trailing = await stream.trailing()
        depths = [chunk.depth for chunk in chunks for _ in chunk.token_ids]
        confidences = [each for chunk in chunks for each in chunk.confidences]
        assert len(depths) == len(confidences) == 40
        assert len(set(depths)) > 1
        assert all(sure >= 0.8 for sure, depth in zip(confidences, depths, strict=True) if depth < 4)
        assert _unfolded(trailing["helios-depths"], 40) == depths
        limits = (await pod.telemetry()).limits
        assert (limits.exit_mode, round(limits.exit_threshold, 6)) == ("token", 0.8)
    async with serving(tiny) as pod:
        stream = pod.client.generate(generate_request(max_tokens=2))
        _ = [message async for message in stream]
        assert "helios-depths" not in await stream.trailing()


def _unfolded(told: str, tokens: int) -> list[int]:
    changes = [tuple(map(int, each.split(":"))) for each in told.split(",")]
    return [next(depth for at, depth in reversed(changes) if at <= index) for index in range(tokens)]


def _spans(changes: int) -> tuple[Span, ...]:
    served = [replace(SERVED, depth=depth, exit_mode="token") for depth in (2, 6)]
    return tuple(Span(index, served[index % 2]) for index in range(changes))


def test_spans_are_read_as_they_were_told() -> None:
    metadata = dict(messages.trailing("chat", INFO, _spans(3)))
    entries = json.loads(metadata["helios-spans"])
    assert {entry["exitMode"] for entry in entries} == {"token"}
    assert messages.read_spans(entries) == _spans(3)
    assert metadata["helios-depths"] == "0:2,1:6,2:2"


def test_depths_are_told_where_spans_are_too_many_and_never_more_than_metadata_holds() -> None:
    metadata = dict(messages.trailing("chat", INFO, _spans(300)))
    assert metadata["helios-spans-omitted"] == "300"
    assert _unfolded(metadata["helios-depths"], 300) == [2, 6] * 150
    many = dict(messages.trailing("chat", INFO, _spans(2000)))
    assert (many["helios-depths-omitted"], "helios-depths" in many) == ("2000", False)
    for told_of in (metadata, many):
        assert sum(map(len, (*told_of, *told_of.values()))) < 8192 - 1024


# -- by hand


def test_the_arguments_become_limits() -> None:
    config = parse(["--model", "file:///m", *BY_HAND])
    limits = config.limits
    assert (limits.exit_mode, limits.exit_threshold, limits.max_batch_size) == ("token", 0.8, 8)
    assert not config.engine.prefix_caching
    assert parse(["--model", "file:///m", *BY_HAND, "--max-batch-size", "3"]).limits.max_batch_size == 3
    assert parse(["--model", "file:///m"]).limits.exit_mode == "sequence"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--exit-mode", "token", "--exit-layers", "1"), "exit-threshold"),
        (("--exit-mode", "tokens"), "limits.exit_mode"),
        (("--exit-threshold", "0.5"), "limits.exit_threshold"),
        ((*BY_HAND, "--exit-threshold", "3"), "limits.exit_threshold"),
        ((*BY_HAND, "--max-batch-size", "9"), "limits.max_batch_size"),
        ((*BY_HAND, "--audit-percent", "10"), "limits.audit.percent"),
        ((*BY_HAND, "--prefix-caching", "on"), "prefix-caching"),
        ((*BY_HAND, "--layer-budget", "1"), "limits.layer_budget"),
        (BY_HAND[:4], "limits.exit_layers"),
    ],
)
def test_what_it_cannot_have_beside_it_is_named(
    tiny: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], field: str
) -> None:
    code, line = told(capsys, "--model", f"file://{tiny}", *arguments)
    assert (code, line.partition(": ")[2].partition(": ")[0]) == (2, field)
