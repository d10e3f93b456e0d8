"""Thousands of random schedules: no budget is exceeded, no page leaks, and all that is admitted ends."""

from __future__ import annotations

from dataclasses import dataclass

from helios_server.engine.pages import PageAllocator
from helios_server.engine.request import Served
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Scheduler, StepPlan
from helios_server.engine.sequence import Sequence, State
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sizes import examples

PAGE_TOKENS = 4
SERVED = Served("c", "file:///m", "r", "f", "", 6)


@dataclass(frozen=True)
class Arrival:
    """prompt, output: tokens; step: before which it arrives; abort: after so many steps in the system, 0 for
    never.
    """

    prompt: int
    output: int
    step: int
    abort: int


@dataclass(frozen=True)
class World:
    """pages: of the pool; step_tokens: new tokens a step; rows: sequences at once; resizes: step -> pages."""

    pages: int
    step_tokens: int
    rows: int
    arrivals: list[Arrival]
    resizes: dict[int, int]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    pages = draw(st.integers(2, 24))
    rows = draw(st.integers(1, 8))
    step_tokens = draw(st.integers(rows, 24))
    smallest = draw(st.integers(2, pages))
    longest = smallest * PAGE_TOKENS

    def arrival() -> st.SearchStrategy[Arrival]:
        lengths = st.integers(1, longest).flatmap(
            lambda prompt: st.tuples(st.just(prompt), st.integers(1, longest - prompt + 1))
        )
        return st.builds(
            lambda lengths, step, abort: Arrival(*lengths, step, abort),
            lengths,
            st.integers(0, 30),
            st.sampled_from([0, 0, 0, 1, 3, 9]),
        )

    arrivals = draw(st.lists(arrival(), min_size=1, max_size=12))
    resizes = draw(st.dictionaries(st.integers(1, 40), st.integers(smallest, 30), max_size=3))
    return World(pages, step_tokens, rows, arrivals, resizes)


def sequence_of(arrival: Arrival, index: int) -> Sequence:
    return Sequence(f"s{index}", tuple(range(arrival.prompt)), SamplingParams(), arrival.output)


def check(plan: StepPlan, scheduler: Scheduler, world: World) -> None:
    assert plan.tokens <= world.step_tokens
    assert len(scheduler.running) <= world.rows
    assert len({row.sequence for row in plan.rows}) == len(plan.rows)
    held = [page for sequence in scheduler.running for page in sequence.pages]
    assert len(held) == len(set(held)) == scheduler.pages.used
    assert all(page < scheduler.pages.capacity for page in held)
    assert all(not sequence.pages for sequence in scheduler.waiting)
    for row in plan.rows:
        assert row.sequence.state is State.RUNNING
        assert row.start == row.sequence.computed
        assert len(row.sequence.pages) * PAGE_TOKENS >= row.start + row.count
        assert row.samples == (row.start + row.count == row.sequence.length)


def run(plan: StepPlan, scheduler: Scheduler) -> list[Sequence]:
    """As the engine would: everything is computed, each sampling row gets a token. Returns who ended."""
    ended = []
    for row in plan.rows:
        row.sequence.advance(row.count)
        if row.samples:
            row.sequence.append(len(row.sequence.output_ids), SERVED)
            if len(row.sequence.output_ids) == row.sequence.max_tokens:
                scheduler.finish(row.sequence)
                ended.append(row.sequence)
    return ended


@settings(max_examples=examples(1500, heavy=True))
@given(worlds())
def test_every_schedule_keeps_its_budgets_and_ends(world: World) -> None:
    scheduler = Scheduler(PageAllocator(world.pages, PAGE_TOKENS), world.step_tokens, world.rows, lambda _: 6)
    sequences = [sequence_of(arrival, index) for index, arrival in enumerate(world.arrivals)]
    ended: set[Sequence] = set()
    for step in range(5000):
        for arrival, sequence in zip(world.arrivals, sequences, strict=True):
            if arrival.step == step:
                scheduler.add(sequence)
            if (
                arrival.abort
                and step == arrival.step + arrival.abort
                and sequence.state is not State.FINISHED
            ):
                scheduler.finish(sequence)
                ended.add(sequence)
        if step in world.resizes:
            scheduler.resize(max(world.resizes[step], scheduler.pages.used))
        plan = scheduler.plan()
        check(plan, scheduler, world)
        ended.update(run(plan, scheduler))
        if len(ended) == len(sequences) and step > max(arrival.step for arrival in world.arrivals):
            break
    assert len(ended) == len(sequences)
    assert scheduler.pages.used == 0
    for arrival, sequence in zip(world.arrivals, sequences, strict=True):
        assert arrival.abort or sequence.output_ids == list(range(arrival.output))


def test_decoding_rows_go_first_and_a_long_prompt_takes_what_is_left() -> None:
    scheduler = Scheduler(PageAllocator(100, PAGE_TOKENS), 10, 4, lambda _: 6)
    short, long = sequence_of(Arrival(3, 9, 0, 0), 0), sequence_of(Arrival(30, 9, 0, 0), 1)
    scheduler.add(short)
    run(scheduler.plan(), scheduler)
    scheduler.add(long)
    plan = scheduler.plan()
    assert [(row.sequence, row.count) for row in plan.rows] == [(short, 1), (long, 9)]
    run(plan, scheduler)
    assert [(row.start, row.count) for row in scheduler.plan().rows] == [(3 + 1, 1), (9, 9)]


def test_the_newest_is_preempted_and_comes_back_with_its_output() -> None:
    scheduler = Scheduler(PageAllocator(5, PAGE_TOKENS), 16, 4, lambda _: 6)
    old, new = sequence_of(Arrival(7, 12, 0, 0), 0), sequence_of(Arrival(4, 12, 0, 0), 1)
    scheduler.add(old)
    scheduler.add(new)
    preempted: list[Sequence] = []
    while old.state is not State.FINISHED:
        plan = scheduler.plan()
        preempted += plan.preempted
        run(plan, scheduler)
    assert preempted
    assert set(preempted) == {new}
    assert new.preemptions == len(preempted)
    while new.state is not State.FINISHED:
        run(scheduler.plan(), scheduler)
    assert new.output_ids == list(range(12))


def test_nothing_is_admitted_while_admission_is_off() -> None:
    scheduler = Scheduler(PageAllocator(9, PAGE_TOKENS), 16, 4, lambda _: 6)
    scheduler.add(sequence_of(Arrival(4, 4, 0, 0), 0))
    scheduler.admitting = False
    assert scheduler.plan() == StepPlan(())
    scheduler.admitting = True
    assert len(scheduler.plan().admitted) == 1
