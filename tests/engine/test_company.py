"""One request cannot end or change another: whatever is asked, in whatever way it ends, eight steady requests
beside it say what they say alone.

`make test-long` asks 5,000 requests; otherwise it is a small part of that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from helios_contract.limits import Audit
from helios_proto.v1 import generation_pb2 as pb
from helios_server.engine.engine import Engine
from helios_server.engine.request import (
    Event,
    FailedEvent,
    FinishedEvent,
    FinishReason,
    GenerationRequest,
    TokensEvent,
)
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import InvalidRequest, RequestFailed
from helios_server.rpc.messages import input_ids, sampling_from_proto
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.checkpoints import VOCAB, make_checkpoint, spoil_token
from tests.engine.company import SPOILT, idle, serving, wait_until
from tests.engine.helpers import Stream, prompt_of
from tests.sizes import examples

T = TypeVar("T")
BATCH = 10
EXAMPLES = examples(15, long=500, heavy=True)
FIELDS = {f"sampling_params.{name}" for name in pb.SamplingParams.DESCRIPTOR.fields_by_name}
FIELDS |= {"request_id", "input", "text", "tokenized.input_ids", "exit_policy.layer_budget"}


class Panic(BaseException):
    """No Exception, as the panics of the tokenizers library are none."""


# -- what is asked -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as it comes over the wire. `at`: of which token its caller fails, or gives up."""

    message: pb.GenerateRequest
    caller: str
    at: int


def mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.one_of(usual, usual, usual, usual, other)


TEXTS = ["the ", "<|end|>", "키키", "\ufffd", "\0", "e\u0301", "🙂🙂", "x" * 40]
texts = st.text(min_size=1, max_size=40) | st.sampled_from(TEXTS)
ends = st.integers(0, VOCAB - 1)
legal: dict[str, st.SearchStrategy[Any]] = {
    "min_tokens": st.integers(0, 24),
    "temperature": st.sampled_from([0.0, 0.7, 1.0, 2.0, 1e-5, 1e-6, 1e-40, 1e30]) | st.floats(0, 2, width=32),
    "top_k": st.integers(0, VOCAB + 2) | st.just(2**32 - 1),
    "top_p": st.sampled_from([0.1, 0.9, 1.0, 1e-40]) | st.floats(2**-149, 1, width=32),
    "min_p": st.sampled_from([0.0, 0.05, 1.0, 1e-40]) | st.floats(0, 1, width=32),
    "repetition_penalty": st.sampled_from([1.0, 1.1, 2.0, 0.5, 0.001, 1000.0]),
    "stop": st.lists(texts, max_size=3),
    "stop_token_ids": st.lists(ends, max_size=3) | st.builds(lambda: list(range(VOCAB))),
    "ignore_eos": st.booleans(),
    "seed": st.integers(0, 2**64 - 1),
    "logprobs": st.booleans(),
}
wild = {
    "min_tokens": st.integers(0, 30),
    "temperature": st.floats(width=32),
    "top_p": st.floats(width=32),
    "min_p": st.floats(width=32),
    "repetition_penalty": st.floats(width=32) | st.just(1e-39),
    "stop": st.lists(st.text(max_size=3), max_size=9),
    "stop_token_ids": st.lists(st.integers(0, 2**32 - 1), max_size=3),
}
samplings = mostly(
    st.fixed_dictionaries({"max_tokens": st.integers(24, 30)}, optional=legal),
    st.fixed_dictionaries({"max_tokens": st.integers(0, 24)}, optional=legal | wild),
)
known = st.lists(st.integers(0, VOCAB - 1).filter(lambda token: token != SPOILT), min_size=1, max_size=70)
unknown = st.lists(st.integers(0, VOCAB) | st.just(SPOILT), max_size=5)
ids = mostly(known, st.builds(lambda before, odd, after: before + odd + after, known, unknown, known))


def _message(given: str | list[int], sampling: dict[str, Any], depth: int) -> pb.GenerateRequest:
    message = pb.GenerateRequest(sampling_params=pb.SamplingParams(**sampling))
    message.exit_policy.layer_budget = depth
    if isinstance(given, str):
        message.text = given
    else:
        message.tokenized.input_ids[:] = given
    return message


asked = st.builds(
    Asked,
    st.builds(
        _message,
        mostly(texts | ids, mostly(ids, st.just(""))),
        samplings,
        st.sampled_from([0, 0, 2, 4, 6] * 4 + [3]),
    ),
    st.sampled_from(["listens"] * 6 + ["aborts", "fails", "fails at the end"]),
    st.integers(0, 8),
)


OF_EACH_KIND = [
    Asked(_message([5, *odd], {"max_tokens": 9, "ignore_eos": True}, 0), caller, at)
    for odd, caller, at in (
        ((), "listens", 2),
        ((VOCAB,), "listens", 2),
        ((SPOILT,), "listens", 2),
        ((), "fails", 2),
        ((), "aborts", 2),
        ((), "aborts", 8),
    )
]


# -- the eight -----------------------------------------------------------------------------------------------

STEADY: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8, "seed": 1},
    {"temperature": 1.0, "top_p": 0.9, "seed": 2},
    {"temperature": 1.2, "top_k": 20, "seed": 3},
    {"temperature": 1.0, "min_p": 0.05, "seed": 4},
    {"repetition_penalty": 1.3},
    {"temperature": 0.9, "repetition_penalty": 1.1, "min_tokens": 30, "seed": 5},
    {"logprobs": True, "stop": ("never said",)},
)


class Steady:
    """A request that is asked again as soon as it is answered."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.answers: Counter[tuple[int, ...]] = Counter()
        self.failed: FailedEvent | None = None
        self._engine = engine
        params = SamplingParams(**{"max_tokens": 60, "ignore_eos": True} | STEADY[index])
        prompt = prompt_of(5 + 9 * index, index)
        self._request = GenerationRequest(f"steady-{index}", prompt, params, (0, 2, 4)[index % 3])
        self._again = False

    def ask(self, again: bool) -> None:
        """Once, or until `end`."""
        self._again = again
        self._engine.submit(self._request, self._heard)

    def end(self) -> None:
        """Not again."""
        self._again = False

    def answered(self) -> bool:
        return bool(self.answers)

    def _heard(self, event: Event) -> None:
        if isinstance(event, FailedEvent):
            self.failed = event
        if isinstance(event, FinishedEvent):
            self.answers[event.output_ids] += 1
            if self._again:
                self._engine.submit(self._request, self._heard)


# -- the crowd -----------------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """What became of all that was asked beside the steady ones, and what they said when they were alone."""

    engine: Engine
    steady: list[Steady]
    alone: list[tuple[int, ...]]
    ended: Counter[str] = field(default_factory=Counter)
    _asked: int = 0
    _aborted: dict[str, bool] = field(default_factory=dict)  # whether the engine still had what was given up

    def ask(self, batch: list[Asked]) -> None:
        """Asks all at once, waits for all and looks at each."""
        begun = [(one, stream) for one in batch if (stream := self._begin(one))]
        for one, stream in begun:
            event = stream.end()
            (self._look_at_answer if isinstance(event, FinishedEvent) else self._look_at_failure)(one, stream)

    def unchanged(self) -> None:
        """The engine lives, and the steady ones say what they said alone."""
        assert self.engine.failed is None
        for one, alone in zip(self.steady, self.alone, strict=True):
            assert one.failed is None
            assert set(one.answers) <= {alone}

    def _begin(self, one: Asked) -> Stream | None:
        self._asked += 1
        stream = Stream(f"asked-{self._asked}")

        def heard(event: Event) -> None:
            token = isinstance(event, TokensEvent) and event.index == one.at
            if (one.caller == "fails" and token) or (
                one.caller == "fails at the end" and isinstance(event, FinishedEvent)
            ):
                raise Panic
            if one.caller == "aborts" and token:
                self._aborted[stream.request_id] = self.engine.abort(stream.request_id)
            stream(event)

        try:
            self.engine.submit(self._request(one, stream.request_id), heard)
        except InvalidRequest as error:
            self.ended["refused" if error.field in FIELDS else "refused without naming a field"] += 1
            return None
        return stream

    def _request(self, one: Asked, request_id: str) -> GenerationRequest:
        """As the door makes it of a message."""
        sampling, given = sampling_from_proto(one.message.sampling_params), input_ids(one.message)
        if given is None:
            given = tuple(self.engine.serving.model.tokenizer.encode(one.message.text, add_special=True))
        return GenerationRequest(request_id, given, sampling, one.message.exit_policy.layer_budget)

    def _look_at_answer(self, one: Asked, stream: Stream) -> None:
        end, sampling = stream.result(), one.message.sampling_params
        assert all(0 <= token < VOCAB for token in end.output_ids)
        assert list(end.output_ids) == stream.tokens
        assert len(end.output_ids) <= sampling.max_tokens
        aborted = self._aborted.get(stream.request_id)
        assert (end.reason is FinishReason.ABORT) == bool(aborted)
        if aborted is False:  # too late, with its last token
            assert stream.events[-2].index == one.at
        assert SPOILT not in (*one.message.tokenized.input_ids, *end.output_ids[:-1])
        for event in stream.events:
            if isinstance(event, TokensEvent):
                assert all(0 < confidence <= 1 for confidence in event.confidences)
                assert all(value <= 0 and not math.isnan(value) for value in event.logprobs)
        self.ended[end.reason] += 1

    def _look_at_failure(self, one: Asked, stream: Stream) -> None:
        event = stream.events[-1]
        assert isinstance(event, FailedEvent)
        assert isinstance(event.error, RequestFailed)
        if event.error.field == "logits":
            assert SPOILT in (*one.message.tokenized.input_ids, *stream.tokens)
            self.ended["not finite"] += 1
        else:
            assert one.caller.startswith("fails")
            assert event.error.problem.startswith("Panic")
            self.ended["caller failed"] += 1


@contextmanager
def crowd(path: Path) -> Iterator[Crowd]:
    """An engine that is short of pages, audits a third of the prompts, and has eight requests running."""
    with serving(path, max_batch_size=16, max_queue_size=64, audit=Audit(33)) as engine:
        engine.at_boundary(lambda: engine.serving.resize(40)).result()
        alone: list[tuple[int, ...]] = []
        for index in range(len(STEADY)):
            single = Steady(engine, index)
            single.ask(again=False)
            wait_until(single.answered)
            alone += single.answers
        made = Crowd(engine, [Steady(engine, index) for index in range(len(STEADY))], alone)
        for one in made.steady:
            one.ask(again=True)
        yield made


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_one_request_cannot_end_or_change_another(tmp_path: Path) -> None:
    path = spoil_token(make_checkpoint(tmp_path / "model", layers=6, tied=False, seed=4), SPOILT)
    with crowd(path) as beside:

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @example(OF_EACH_KIND)
        @given(st.lists(asked, min_size=BATCH, max_size=BATCH))
        def ask(batch: list[Asked]) -> None:
            beside.ask(batch)
            beside.unchanged()

        ask()
        for one in beside.steady:
            wait_until(one.answered)
            one.end()
        wait_until(lambda: idle(beside.engine))
        beside.unchanged()
        told = beside.engine.telemetry()
    assert sum(beside.ended.values()) >= BATCH * EXAMPLES
    assert all(beside.ended[name] for name in ("refused", "length", "not finite"))
    assert not beside.ended["refused without naming a field"]
    assert told.requests_failed == beside.ended["not finite"] + beside.ended["caller failed"]
    assert told.preemptions > 0
    sums = [histogram.sum for histogram in (told.ttft_ms, told.itl_ms, told.e2e_ms, told.confidence_percent)]
    assert all(map(math.isfinite, sums))
