"""What one request may ask, what it is refused, and how it ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helios_server.engine.answer import StopText
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FailedEvent, FinishReason, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import Draining, HeliosError, InvalidRequest, QueueFull
from helios_server.models.tokenizer import Tokenizer

from tests.engine.helpers import Stream, prompt_of, running, send

EXITS = (2, 4)


def text_of(stream: Stream) -> str:
    return "".join(event.text for event in stream.events if isinstance(event, TokensEvent))


def test_events_add_up_to_the_end(tiny: Path) -> None:
    with running(tiny, exit_layers=EXITS, breach_threshold=0.5) as engine:
        stream = send(engine, prompt_of(20), depth=4, max_tokens=40, ignore_eos=True, logprobs=True)
        end = stream.result()
        tokens = [event for event in stream.events if isinstance(event, TokensEvent)]
    assert [event.index for event in tokens] == list(range(40))
    assert tuple(token for event in tokens for token in event.token_ids) == end.output_ids
    assert text_of(stream) == end.text == Tokenizer.open(tiny).decode(end.output_ids)
    assert all(event.depth == 4 and len(event.logprobs) == 1 for event in tokens)
    assert all(event.breaches[0] == (event.confidences[0] < 0.5) for event in tokens)
    assert end.breaches == sum(event.breaches[0] for event in tokens)
    assert end.mean_confidence == pytest.approx(sum(event.confidences[0] for event in tokens) / 40)
    assert (end.reason, end.prompt_tokens, end.mean_layers, end.ordinal) == (FinishReason.LENGTH, 20, 4.0, 1)
    times = end.times
    assert times.scheduled is not None
    assert times.first_token is not None
    assert times.arrived <= times.scheduled <= times.first_token <= times.finished


def test_at_full_depth_nothing_is_a_breach(tiny: Path) -> None:
    with running(tiny, exit_layers=EXITS, breach_threshold=1.0) as engine:
        assert send(engine, prompt_of(20), max_tokens=10, ignore_eos=True).result().breaches == 0
        assert send(engine, prompt_of(20), depth=2, max_tokens=10, ignore_eos=True).result().breaches == 10
        assert engine.telemetry().breaches.total == 10


def test_the_end_token_ends_unless_told_otherwise(tiny: Path) -> None:
    with running(tiny) as engine:
        free = send(engine, prompt_of(20), max_tokens=60, ignore_eos=True).result()
        stop = free.output_ids[7]
        early = free.output_ids.index(stop) + 1
        ended = send(engine, prompt_of(20), max_tokens=60, ignore_eos=True, stop_token_ids=(stop,)).result()
        late = send(engine, prompt_of(20), max_tokens=60, min_tokens=30, stop_token_ids=(stop,)).result()
    assert ended.output_ids == free.output_ids[:early]
    assert ended.reason is FinishReason.STOP
    assert len(late.output_ids) >= 30
    assert stop not in late.output_ids[:30]


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9, "min_p": 0.1}]
)
def test_where_every_token_ends_the_least_number_is_kept(tiny: Path, sampling: dict[str, float]) -> None:
    every = tuple(range(320))
    with running(tiny) as engine:
        free = send(engine, prompt_of(20), max_tokens=9, ignore_eos=True, seed=1, **sampling).result()
        end = send(
            engine, prompt_of(20), max_tokens=9, min_tokens=4, stop_token_ids=every, seed=1, **sampling
        )
        assert end.result().output_ids == free.output_ids[:5]
        assert end.result().reason is FinishReason.STOP


def test_a_stop_string_ends_the_text_before_it(tiny: Path) -> None:
    with running(tiny) as engine:
        free = send(engine, prompt_of(20), max_tokens=60, ignore_eos=True).result()
        stop = free.text[30:33]
        stream = send(engine, prompt_of(20), max_tokens=60, ignore_eos=True, stop=(stop, "never said"))
        end = stream.result()
    assert end.text == text_of(stream) == free.text[: free.text.index(stop)]
    assert (end.matched_stop, end.reason) == (stop, FinishReason.STOP)


def test_what_could_become_a_stop_string_is_held_back() -> None:
    text = StopText(("END", "NO"))
    assert [text.push(part, True) for part in ("abE", "N", "xE", "ND", "z")] == ["ab", "", "ENx", "", ""]
    assert text.matched == "END"
    rest = StopText(("END",))
    assert rest.push("helloEN", True) + rest.rest() == "helloEN" == rest.emitted
    early = StopText(("a",))
    assert early.push("banana", False) == "banana"


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": 1e39}, "temperature"),
        ({"top_p": float("nan")}, "top_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": -2.0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-45}, "repetition_penalty"),
        ({"repetition_penalty": 1e-39}, "repetition_penalty"),
        ({"repetition_penalty": 1e-30}, "repetition_penalty"),
        ({"repetition_penalty": 3.4e38}, "repetition_penalty"),
        ({"repetition_penalty": 1001.0}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"stop": ("",)}, "stop"),
        ({"stop": tuple("abcdefghi")}, "stop"),
        ({"stop_token_ids": (-1,)}, "stop_token_ids"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 64}, "seed"),
    ],
)
def test_sampling_out_of_range_is_refused_by_name(sampling: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^sampling_params\.{field}: .* out of range; Give "):
        SamplingParams(**sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "depth", "sampling", "message"),
    [
        ((), 0, {}, "^input: the prompt is empty"),
        ((1, 320), 0, {}, r"^tokenized.input_ids: 320 is outside the vocabulary of 320"),
        (
            prompt_of(8),
            3,
            {},
            r"^exit_policy.layer_budget: 3 is not a depth served here; Use 0 or one of \[2, 4, 6\]",
        ),
        (
            prompt_of(256),
            0,
            {},
            "^input: the prompt of 256 tokens leaves no room in the context of 256 tokens",
        ),
        (
            prompt_of(200),
            0,
            {"max_tokens": 57},
            "^sampling_params.max_tokens: 57 .* 200 exceed the context of 256",
        ),
        (prompt_of(8), 0, {"stop_token_ids": (999,)}, "^sampling_params.stop_token_ids: 999 is outside"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_by_name(
    tiny: Path, prompt: tuple[int, ...], depth: int, sampling: dict[str, object], message: str
) -> None:
    with running(tiny, exit_layers=EXITS) as engine, pytest.raises(InvalidRequest, match=message):
        send(engine, prompt, depth, **sampling)


def test_an_unset_length_is_clipped_to_the_context(tiny: Path) -> None:
    with running(tiny) as engine:
        assert len(send(engine, prompt_of(250), ignore_eos=True).result().output_ids) == 6
        assert len(send(engine, prompt_of(255), ignore_eos=True).result().output_ids) == 1


def test_an_id_that_runs_is_refused(tiny: Path) -> None:
    with running(tiny) as engine:
        stream = send(engine, prompt_of(20), max_tokens=100, ignore_eos=True)
        with pytest.raises(InvalidRequest, match=r"request_id: .* is already running"):
            engine.submit(GenerationRequest(stream.request_id, prompt_of(3)), stream)


def test_a_cancelled_request_frees_its_row_and_pages(tiny: Path) -> None:
    with running(tiny, max_batch_size=2) as engine:
        streams = [send(engine, prompt_of(20, i), max_tokens=200, ignore_eos=True) for i in range(3)]
        streams[0].wait_for(3)
        assert engine.abort(streams[0].request_id)
        assert engine.abort(streams[2].request_id)
        end = streams[0].result()
        assert (end.reason, streams[2].result().reason) == (FinishReason.ABORT, FinishReason.ABORT)
        assert 3 <= len(end.output_ids) < 200
        streams[1].result()
        load = engine.load()
        assert (load.running, load.waiting, load.kv_used_tokens) == (0, 0, 0)
        assert not engine.abort("nobody")


def test_a_full_queue_says_when_to_come_back(tiny: Path) -> None:
    with running(tiny, max_batch_size=1, max_queue_size=2) as engine:
        streams = [send(engine, prompt_of(20, i), max_tokens=200, ignore_eos=True) for i in range(3)]
        with pytest.raises(QueueFull, match="2 requests are waiting") as full:
            send(engine, prompt_of(5), max_tokens=5)
        assert full.value.retry_seconds >= 1
        for stream in streams:
            stream.result()
        send(engine, prompt_of(5), max_tokens=5).result()


def test_draining_ends_what_runs_and_takes_nothing_new(tiny: Path) -> None:
    with running(tiny) as engine:
        stream = send(engine, prompt_of(20), max_tokens=100, ignore_eos=True)
        engine.begin_drain()
        with pytest.raises(Draining):
            send(engine, prompt_of(5))
        assert len(stream.result().output_ids) == 100
        assert engine.telemetry().draining


def test_stopping_fails_what_has_not_ended(tiny: Path) -> None:
    with running(tiny) as engine:
        streams = [send(engine, prompt_of(20, i), max_tokens=230, ignore_eos=True) for i in range(20)]
        streams[0].wait_for(2)
    end = streams[-1].end()
    assert isinstance(end, FailedEvent)
    assert isinstance(end.error, Draining)


def test_a_broken_step_fails_every_request_and_says_so(tiny: Path) -> None:
    with running(tiny) as engine:
        stream = send(engine, prompt_of(20), max_tokens=230, ignore_eos=True)
        stream.wait_for(2)
        engine.at_boundary(lambda: engine.serving.weights.backbone.truncate(1))
        end = stream.end()
        assert isinstance(end, FailedEvent)
        with pytest.raises(HeliosError, match="engine: IndexError"):
            send(engine, prompt_of(5))


def test_a_warm_up_is_not_counted(tiny: Path) -> None:
    with running(tiny, exit_layers=EXITS) as engine:
        stream = Stream("warm-up")
        request = GenerationRequest("warm-up", prompt_of(30), SamplingParams(max_tokens=5), counted=False)
        engine.submit(request, stream)
        assert stream.result().ordinal == 0
        before = engine.telemetry()
        assert before.requests_finished == before.prompt_tokens == before.generation_tokens == 0
        assert sum(before.ttft_ms.counts) == before.requests_since_change == 0
        assert send(engine, prompt_of(30), max_tokens=5).result().ordinal == 1


def test_telemetry_counts_what_happened(tiny: Path) -> None:
    config = EngineConfig(dtype="float64", max_context=256)
    with running(tiny, config, exit_layers=EXITS, breach_threshold=0.9) as engine:
        streams = [send(engine, prompt_of(20, i), max_tokens=30, ignore_eos=True) for i in range(4)]
        for stream in streams:
            stream.result()
        time.sleep(0.01)
        seen = engine.telemetry()
    assert (seen.requests_finished, seen.requests_failed, seen.requests_since_change) == (4, 0, 4)
    assert (seen.prompt_tokens, seen.generation_tokens) == (80, 120)
    assert 1 <= seen.batch_reached <= 4
    assert sum(seen.ttft_ms.counts) == sum(seen.e2e_ms.counts) == 4
    assert sum(seen.itl_ms.counts) == 4 * 29
    assert sum(seen.confidence_percent.counts) == 120
    assert sum(step.count * step.sampled for step in seen.steps) == pytest.approx(120, rel=0.05)
    assert {step.layers for step in seen.steps} == {6}
    assert all(step.mean_us > 0 and step.kv_tokens >= step.rows for step in seen.steps)
    assert seen.generation_tokens_per_second > 0
    assert seen.limits.model_revision
    assert seen.refused is None


def test_a_text_that_another_tokenizer_has_read_is_to_be_sent_again(tiny: Path) -> None:
    """Read a moment before the model was exchanged, its ids would mean something else."""
    with running(tiny) as engine:
        mine = engine.serving.model.tokenizer_digest
        sent = [GenerationRequest(name, prompt_of(9), tokenizer_digest=name) for name in (mine, "another")]
        with pytest.raises(Draining, match="another tokenizer"):
            engine.submit(sent[1], Stream(sent[1].request_id))
        stream = Stream(sent[0].request_id)
        engine.submit(sent[0], stream)
        assert stream.result().output_ids
