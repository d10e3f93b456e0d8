"""Prompts that begin alike, served by an engine: the same answers as without reuse, and who may profit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helios_contract.limits import Audit
from helios_server.engine.audit import Auditor, chosen
from helios_server.engine.engine import Engine
from helios_server.engine.intake import MAX_SALT
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FinishReason, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.sequence import Sequence
from helios_server.engine.serving import Serving, load_model
from helios_server.errors import InvalidRequest, LimitsRefused
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.engine.bundles import random_bundle
from tests.engine.company import idle, wait_until
from tests.engine.helpers import Stream, limits_for, prompt_of, running
from tests.sizes import examples

CONFIG = EngineConfig(dtype="float64", max_context=256, step_tokens=48)
OFF = replace(CONFIG, prefix_caching=False)
DEPTHS = {"exit_layers": (2, 4)}
FEW_PAGES = 13
ROUNDING = 1e-6
"""Of a log probability in float64: norms round to float32 on the way. Seldom the last bit of a product, which
may differ with the rows beside it, decides which way."""
_numbers = iter(range(1 << 30))


def ask(
    engine: Engine, prompt: tuple[int, ...], salt: str = "", depth: int = 0, name: str = "", **sampling: Any
) -> Stream:
    stream = Stream(name or f"reuse-{next(_numbers)}")
    params = SamplingParams(**({"max_tokens": 4, "ignore_eos": True} | sampling))
    request = GenerationRequest(stream.request_id, prompt, params, depth, cache_salt=salt)
    engine.submit(request, stream)
    return stream


def hits(engine: Engine, prompt: tuple[int, ...], salt: str = "", depth: int = 0) -> int:
    """Tokens of a prompt that an engine with nothing else to do finds."""
    return ask(engine, prompt, salt, depth).result().prefix_hits


def change(engine: Engine, **changes: Any) -> None:
    limits = engine.serving.limits
    engine.set_limits(replace(limits, generation=limits.generation + 1, **changes)).result(60)


# -- the same answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """shared, own: tokens of the prompt; aborts: after so many tokens, 0 for never."""

    stem: int
    shared: int
    own: int
    salt: str
    depth: int
    temperature: float
    output: int
    aborts: int

    @property
    def prompt(self) -> tuple[int, ...]:
        return prompt_of(self.shared, self.stem) + prompt_of(self.own, 40 + self.own)


asked = st.builds(
    Asked,
    stem=st.integers(0, 1),
    shared=st.sampled_from((0, 15, 16, 17, 40, 64, 100)),
    own=st.integers(1, 20),
    salt=st.sampled_from(("", "", "a")),
    depth=st.sampled_from((0, 0, 2, 4)),
    temperature=st.sampled_from((0.0, 1.0)),
    output=st.integers(1, 40),
    aborts=st.sampled_from((0, 0, 0, 3)),
)


@pytest.fixture(scope="module")
def pair(tiny: Path) -> Iterator[tuple[Engine, Engine]]:
    """With reuse and without, both short of pages, an audit for every fifth request."""
    limits = DEPTHS | {"max_batch_size": 6, "audit": Audit(20)}
    with running(tiny, CONFIG, **limits) as one, running(tiny, OFF, **limits) as other:
        for engine in (one, other):
            engine.at_boundary(lambda engine=engine: engine.serving.resize(FEW_PAGES)).result()  # type: ignore[misc]
        yield one, other


def answer(engine: Engine, batch: list[Asked], names: list[str]) -> list[Stream]:
    """All at once, each aborted when it is its time."""
    streams = [
        ask(
            engine,
            each.prompt,
            each.salt,
            each.depth,
            name,
            max_tokens=each.output,
            temperature=each.temperature,
            logprobs=True,
        )
        for each, name in zip(batch, names, strict=True)
    ]
    for each, stream in zip(batch, streams, strict=True):
        if each.aborts:
            stream.wait_for(each.aborts)
            engine.abort(stream.request_id)
    for stream in streams:
        stream.end()
    return streams


SHORT_OF_PAGES = [Asked(0, 100, own, "", 0, own % 2, 40, 0) for own in range(1, 13)]


@settings(max_examples=examples(25, heavy=True), deadline=None, suppress_health_check=list(HealthCheck))
@example(SHORT_OF_PAGES)
@given(st.lists(asked, min_size=8, max_size=14))
def _answers_are_the_same(pair: tuple[Engine, Engine], batch: list[Asked]) -> None:
    names = [f"pair-{next(_numbers)}" for _ in batch]  # of which seeds are made
    with_reuse, without = (answer(engine, batch, names) for engine in pair)
    for one, other in zip(with_reuse, without, strict=True):
        ends = one.result(), other.result()
        shorter = min(len(end.output_ids) for end in ends)
        assert ends[0].output_ids[:shorter] == ends[1].output_ids[:shorter]
        if FinishReason.ABORT not in (ends[0].reason, ends[1].reason):
            assert ends[0].output_ids == ends[1].output_ids
            assert ends[0].text == ends[1].text
            assert logprobs(one) == pytest.approx(logprobs(other), abs=ROUNDING)
        assert ends[1].prefix_queries == ends[1].prefix_hits == 0
    for engine in pair:
        wait_until(lambda engine=engine: idle(engine))  # type: ignore[misc]
        pages = engine.serving.scheduler.pages
        assert (pages.used, pages.free) == (0, FEW_PAGES)


def logprobs(stream: Stream) -> list[float]:
    return [value for event in stream.events if isinstance(event, TokensEvent) for value in event.logprobs]


@pytest.mark.long
def test_answers_are_those_without_reuse(pair: tuple[Engine, Engine]) -> None:
    _answers_are_the_same(pair)
    one, other = pair
    assert one.telemetry().preemptions > 0
    assert other.serving.scheduler.pages.cached == 0
    again = Asked(0, 100, 3, "", 0, 0.0, 4, 0)
    assert max(stream.result().prefix_hits for _ in range(3) for stream in answer(one, [again], [""])) > 0


def test_answers_are_the_same_while_the_budget_moves(tiny: Path) -> None:
    prompts = [prompt_of(70, 3) + prompt_of(9, seed) for seed in range(5)]
    told: list[list[tuple[int, ...]]] = []
    found: list[list[int]] = []
    for config in (CONFIG, OFF):
        with running(tiny, config, **DEPTHS) as engine:
            outputs, hit = list[tuple[int, ...]](), list[int]()
            for budget in (6, 4, 6, 2, 4):
                change(engine, layer_budget=budget)
                ends = [ask(engine, prompt, max_tokens=12).result() for prompt in prompts]
                outputs += [end.output_ids for end in ends]
                hit.append(sum(end.prefix_hits for end in ends))
        told.append(outputs)
        found.append(hit)
    assert told[0] == told[1]
    everything, after_the_first = 64 * 5, 64 * 4
    # Grown, the first prompt finds nothing; shrunk, all find what was there.
    assert found == [[after_the_first, everything, after_the_first, everything, after_the_first], [0] * 5]


# -- who finds what ------------------------------------------------------------------------------------------


def test_a_prompt_finds_what_a_running_one_has_computed(tiny: Path) -> None:
    with running(tiny, CONFIG) as engine:
        first = ask(engine, prompt_of(50), max_tokens=150)
        first.wait_for(20)
        assert hits(engine, (*prompt_of(50), 9)) == 48
        said = tuple(first.result().output_ids)
        assert hits(engine, (*prompt_of(50), *said, 9)) == (50 + 150 - 1) // 16 * 16


def test_a_page_that_lacks_layers_is_computed_whole(tiny: Path) -> None:
    prompt = prompt_of(40)
    with running(tiny, CONFIG, **DEPTHS) as engine:
        assert [hits(engine, prompt, depth=d) for d in (2, 2, 4, 0, 4, 2, 0)] == [0, 32, 0, 0, 32, 32, 32]


def test_callers_with_other_salts_learn_nothing(tiny: Path) -> None:
    prompt = prompt_of(40)
    with running(tiny, CONFIG) as engine:
        assert [hits(engine, prompt, salt) for salt in ("", "a", "b", "\ud800")] == [0, 0, 0, 0]
        assert [hits(engine, prompt, salt) for salt in ("", "a", "b", "\ud800")] == [32, 32, 32, 32]


@pytest.mark.parametrize("length", [MAX_SALT + 1, 100_000])
def test_a_salt_that_is_too_long_is_refused(tiny: Path, length: int) -> None:
    with running(tiny, CONFIG) as engine:
        ask(engine, prompt_of(3), "s" * MAX_SALT).result()
        with pytest.raises(InvalidRequest, match=f"^cache_salt: has {length} characters; Give at most"):
            ask(engine, prompt_of(3), "s" * length)


def test_other_heads_keep_the_cache_and_another_model_empties_it(
    tiny: Path, other: Path, tmp_path: Path
) -> None:
    heads, prompt = random_bundle(tmp_path / "heads", tiny, (2, 4), 1), prompt_of(40)
    with running(tiny, CONFIG, layer_budget=4, **DEPTHS) as engine:
        assert [hits(engine, prompt), hits(engine, prompt)] == [0, 32]
        change(engine, exits_uri=heads.uri, exits_digest=heads.digest)
        assert hits(engine, prompt) == 32
        change(engine, model_uri=f"file://{other}", exits_uri="", exits_digest="")
        assert engine.serving.scheduler.pages.cached == 0
        assert [hits(engine, prompt), hits(engine, prompt)] == [0, 32]
        change(engine, model_uri=f"file://{tiny}")
        assert hits(engine, prompt) == 0


def test_a_refused_model_leaves_an_empty_cache_or_the_one_that_was(tiny: Path, tmp_path: Path) -> None:
    prompt = prompt_of(40)
    with running(tiny, CONFIG) as engine:
        first = ask(engine, prompt).result()
        with pytest.raises(Exception, match="nothing"):
            change(engine, model_uri=f"file://{tmp_path / 'nothing'}")
        again = ask(engine, prompt).result()
        assert again.output_ids == first.output_ids
        assert again.prefix_hits in (0, 32)


def test_a_change_that_breaks_off_forgets_what_pages_held(tiny: Path) -> None:
    serving = Serving(CONFIG, load_model(CONFIG, limits_for(tiny)))
    scheduler = serving.scheduler
    sequence = _sequence(serving, prompt_of(40))
    scheduler.finish(sequence)
    assert scheduler.pages.cached == 2
    with pytest.raises(LimitsRefused), serving.changing():
        raise LimitsRefused("limits", "broke", "Try again")
    assert (scheduler.pages.cached, scheduler.pages.free) == (0, scheduler.pages.capacity)


def _sequence(serving: Serving, prompt: tuple[int, ...]) -> Sequence:
    """Planned and run by hand."""
    sequence = Sequence("s", prompt, SamplingParams(), 1)
    serving.scheduler.add(sequence)
    plan = serving.scheduler.plan()
    serving.weights.run(plan)
    sequence.advance(plan.tokens)
    return sequence


# -- audits --------------------------------------------------------------------------------------------------


def test_who_is_audited_does_not_depend_on_what_is_found(tiny: Path) -> None:
    """One prompt over and over: those drawn compute all of it, and are audited; all others find it."""
    percent, sent, prompt = 30, 40, prompt_of(40)
    with running(tiny, CONFIG, **DEPTHS, audit=Audit(percent)) as engine:
        ends = [ask(engine, prompt).result() for _ in range(sent)]
        drawn = {end.ordinal for end in ends if chosen(end.ordinal, percent)}
        wait_until(lambda: len(engine.telemetry().audits) == len(drawn))
        audits = engine.telemetry().audits
    assert {row.request for row in audits} == drawn
    assert len({(row.full_millibits, *row.exits.values()) for row in audits}) == 1
    queries = {end.ordinal: (end.prefix_queries, end.prefix_hits) for end in ends}
    looked_up = {ordinal: (40, 32) if ordinal > 1 else (40, 0) for ordinal in queries}
    assert queries == looked_up | dict.fromkeys(drawn, (0, 0))
    assert 5 < len(drawn) < sent - 5


def test_whose_turn_it_was_is_not_scored_when_nothing_is_to_be(tiny: Path) -> None:
    """Limits may change between the draw and the row; an audit takes memory that they may not plan for."""
    auditor = Auditor(lambda row: None, lambda: None)
    sequence = Sequence("s", prompt_of(20), SamplingParams(), 1, ordinal=1)
    sequence.admit(6)
    for drawn, percent, captured in ((True, 0, 0), (False, 100, 0), (True, 100, 1)):
        sequence.drawn = drawn
        auditor.admit(sequence, limits_for(tiny, audit=Audit(percent)), 0.0)
        assert len(auditor.captures) == captured
    auditor.close()


# -- room ----------------------------------------------------------------------------------------------------


def test_cached_pages_are_room_for_others(tiny: Path) -> None:
    with running(tiny, CONFIG, max_batch_size=4) as engine:
        engine.at_boundary(lambda: engine.serving.resize(16)).result()
        assert hits(engine, prompt_of(100)) == 0
        load, pages = engine.load(), engine.serving.scheduler.pages
        assert (load.kv_used_tokens, pages.cached, pages.free) == (0, 6, 16)
        end = ask(engine, prompt_of(200, 5), max_tokens=50).result()  # all pages there are
        assert (len(end.output_ids), end.preemptions) == (50, 0)
        assert hits(engine, prompt_of(100)) == 0


def test_a_change_takes_cached_pages_without_waiting(tiny: Path) -> None:
    with running(tiny, CONFIG, layer_budget=2, **DEPTHS) as engine:
        for seed in range(6):
            hits(engine, prompt_of(200, seed))
        pages = engine.serving.scheduler.pages
        change(engine, layer_budget=6)
        assert pages.used == 0
        assert pages.cached <= pages.capacity == engine.serving.pool.pages
        engine.at_boundary(lambda: engine.serving.resize(3)).result()
        assert (pages.free, pages.cached) == (3, 3)


def test_pages_that_move_are_found_where_they_went(tiny: Path) -> None:
    prompt = prompt_of(40, 7)
    with running(tiny, CONFIG) as engine:
        expected = ask(engine, prompt, max_tokens=1).result().output_ids
        engine.at_boundary(lambda: engine.serving.scheduler.prefixes.clear()).result()
        hits(engine, prompt_of(200))  # lies at the beginning of the cache
        ask(engine, prompt, max_tokens=1).result()
        engine.at_boundary(lambda: engine.serving.resize(14)).result()
        found = ask(engine, prompt, max_tokens=1).result()
        assert (found.output_ids, found.prefix_hits) == (expected, 32)
