"""A request that fails, for whatever reason, fails alone: nobody beside it, before it or after it notices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract.limits import Audit
from helios_server.engine.engine import Engine
from helios_server.engine.request import Event, FailedEvent, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import Draining, RequestFailed
from helios_server.exits.head import BareHead
from helios_server.models.tokenizer import Tokenizer

from tests.checkpoints import make_checkpoint, spoil_token
from tests.engine.company import SPOILT, ask, failure, idle, outputs, serving, wait_until
from tests.engine.helpers import Stream, prompt_of, send


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that overflows on one token."""
    made = make_checkpoint(tmp_path_factory.mktemp("spoilt") / "model", layers=6, tied=False, seed=4)
    return spoil_token(made, SPOILT)


def numbers(engine: Engine) -> list[float]:
    """All that telemetry sums up."""
    told = engine.telemetry()
    sums = [histogram.sum for histogram in (told.ttft_ms, told.itl_ms, told.e2e_ms, told.confidence_percent)]
    audited = [row.full_millibits for row in told.audits]
    called = [alarm.statistic for alarm in told.alarms]
    return [*sums, *called, *audited, *(bits for row in told.audits for bits, _ in row.exits.values())]


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0}, {"min_tokens": 3}]
)
def test_logits_that_are_not_finite_end_one_request(spoilt: Path, sampling: dict[str, Any]) -> None:
    """Beside others, with audits of every prompt; nothing that is told holds a NaN."""
    limits: dict[str, Any] = {"layer_budget": 4, "audit": Audit(100), "breach_threshold": 0.5}
    bad = (*prompt_of(30), SPOILT, *prompt_of(30))
    with serving(spoilt, **limits) as engine:
        alone = outputs(ask(engine))
        beside = ask(engine)
        failed = [send(engine, bad, max_tokens=20, **sampling) for _ in range(3)]
        for stream in failed:
            error = failure(stream).error
            assert (error.code, error.field, error.problem) == ("INTERNAL", "logits", "not finite")
            assert stream.tokens == []
        assert outputs(beside) == alone
        wait_until(lambda: len(engine.telemetry().audits) >= 2 * 5)
        send(engine, prompt_of(50), max_tokens=3).result()
        wait_until(lambda: len(engine.telemetry().audits) >= 2 * 5 + 1)
        told = engine.telemetry()
        assert engine.failed is None
        assert idle(engine)
    assert (told.requests_failed, told.requests_finished) == (3, 17)
    assert told.generation_tokens == 16 * 40 + 3 == sum(told.confidence_percent.counts)
    assert all(map(math.isfinite, numbers(engine)))
    assert {row.request for row in told.audits}.isdisjoint({17, 18, 19})


def test_an_audit_leaves_out_what_is_not_finite(tiny: Path) -> None:
    """A head that overflows keeps nobody from auditing the others."""
    limits: dict[str, Any] = {"layer_budget": 4, "audit": Audit(100)}
    with serving(tiny, **limits) as engine:
        backbone = engine.serving.weights.backbone

        class Overflowing(BareHead):
            def apply(self, hidden: torch.Tensor) -> torch.Tensor:
                return super().apply(hidden) * torch.nan

        engine.serving.weights.heads._bundles[""].heads[2] = Overflowing(backbone)
        send(engine, prompt_of(40), max_tokens=3).result()
        wait_until(lambda: len(engine.telemetry().audits) == 1)
        assert set(engine.telemetry().audits[0].exits) == {("", 4)}
        assert str(failure(send(engine, prompt_of(40), depth=2)).error).startswith("logits: not finite")


class Trouble(BaseException):
    """No Exception, as the panics of a library in another language are none."""


def raising(error: BaseException, at: type[Event]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if isinstance(event, at):
            raise error

    return on_event


def submit(engine: Engine, request_id: str, on_event: Callable[[Event], None], **sampling: Any) -> None:
    params = SamplingParams(**{"max_tokens": 20, "ignore_eos": True} | sampling)
    engine.submit(GenerationRequest(request_id, prompt_of(20), params), on_event)


@pytest.mark.parametrize("error", [RuntimeError("gone"), Trouble("panic"), SystemExit(1)])
@pytest.mark.parametrize("at", [TokensEvent, FinishedEvent])
def test_a_caller_that_cannot_listen_ends_its_own_request(
    tiny: Path, error: BaseException, at: type[Event]
) -> None:
    with serving(tiny) as engine:
        alone = outputs(ask(engine))
        beside = ask(engine)
        heard = Stream("bad")

        def on_event(event: Event) -> None:
            raising(error, at)(event)
            heard(event)

        submit(engine, "bad", on_event)
        submit(engine, "worse", raising(error, Event))  # type: ignore[arg-type]
        told = failure(heard).error
        assert isinstance(told, RequestFailed)
        assert told.problem == f"{type(error).__name__}: {error}"
        assert outputs(beside) == alone
        assert idle(engine)
        assert engine.telemetry().requests_failed == 2
        submit(engine, "bad", heard)  # the id is free again


def test_a_caller_that_cannot_listen_may_be_aborted(tiny: Path) -> None:
    with serving(tiny) as engine:
        submit(engine, "bad", raising(Trouble("panic"), FinishedEvent), max_tokens=200)
        assert engine.abort("bad")
        send(engine, prompt_of(9), max_tokens=5).result()
        assert idle(engine)
        assert engine.telemetry().requests_failed == 1


def test_all_are_told_of_the_end_whoever_cannot_listen(tiny: Path) -> None:
    with serving(tiny) as engine:
        submit(engine, "bad", raising(Trouble("panic"), FailedEvent), max_tokens=200)
        stream = send(engine, prompt_of(20), max_tokens=200, ignore_eos=True)
        stream.wait_for(1)
    assert isinstance(failure(stream).error, Draining)


class Broken:
    """Text that cannot be made."""

    def push(self, token_id: int) -> str:
        raise Trouble(f"byte index 1 of token {token_id} is not a char boundary")


def test_an_error_in_detokenising_ends_one_request(tiny: Path) -> None:
    with serving(tiny) as engine:
        alone = outputs(ask(engine))
        beside = ask(engine)

        def begin() -> Stream:
            stream = send(engine, prompt_of(20), max_tokens=20)
            engine._answers[stream.request_id]._stream = Broken()  # type: ignore[assignment]
            return stream

        stream = engine.at_boundary(begin).result()
        assert "not a char boundary" in str(failure(stream).error)
        assert stream.tokens == []
        assert outputs(beside) == alone
        assert idle(engine)
        told = engine.telemetry()
    delivered = 2 * sum(map(len, alone))
    assert told.generation_tokens == sum(told.confidence_percent.counts) == delivered


def test_an_error_in_sampling_ends_one_request(tiny: Path) -> None:
    with serving(tiny) as engine:
        alone = outputs(ask(engine))
        beside = ask(engine)

        def begin() -> Stream:
            stream = send(engine, prompt_of(20), max_tokens=20, min_tokens=5)
            object.__setattr__(
                engine._answers[stream.request_id].request.sampling, "stop_token_ids", (10**6,)
            )
            return stream

        assert failure(engine.at_boundary(begin).result()).error.problem.startswith("IndexError: ")
        assert outputs(beside) == alone


def test_an_audit_that_cannot_read_a_prompt_passes_it_over(tiny: Path) -> None:
    class Forgetful(Tokenizer):
        def bytes_of(self, ids: Sequence[int]) -> int:
            if len(ids) == 39:
                raise Trouble("no such token")
            return super().bytes_of(ids)

    with serving(tiny, audit=Audit(100)) as engine:
        model = engine.serving.model
        engine.serving.model = replace(model, tokenizer=Forgetful(model.tokenizer._codec))
        streams = [send(engine, prompt_of(length), max_tokens=2) for length in (30, 40, 50)]
        for stream in streams:
            stream.result()
        wait_until(lambda: len(engine.telemetry().audits) == 2)
        assert [row.tokens for row in engine.telemetry().audits] == [29, 49]
