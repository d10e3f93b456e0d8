"""Prefix reuse by page ids alone: random schedules over a cache that knows what was written where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

import pytest
from helios_server.engine.pages import PageAllocator
from helios_server.engine.prefixes import Prefixes
from helios_server.engine.request import Served
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, Scheduler
from helios_server.engine.sequence import Sequence, State
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sizes import examples

PAGE_TOKENS = 2
DEPTHS = (2, 4, 6)
SERVED = Served("c", "file:///m", "r", "f", "", 6)


# -- a world -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """depth: asked for, in layers; step: before which it arrives; abort: after so many steps, 0 for never."""

    prompt: tuple[int, ...]
    output: int
    salt: str
    depth: int
    drawn: bool
    step: int
    abort: int


@dataclass(frozen=True)
class World:
    """changes: before a step: pages to resize to, or a budget of layers, or the name of another model."""

    pages: int
    step_tokens: int
    rows: int
    arrivals: list[Arrival]
    changes: dict[int, tuple[str, int]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    pages, rows = draw(st.integers(3, 16)), draw(st.integers(1, 5))
    smallest = draw(st.integers(3, pages))
    longest = smallest * PAGE_TOKENS
    stem = draw(st.lists(st.integers(0, 1), min_size=longest, max_size=longest))

    def arrival() -> st.SearchStrategy[Arrival]:
        def prompt(shared: int, own: list[int], output: int) -> tuple[tuple[int, ...], int]:
            ids = tuple([*stem[:shared], *own][:longest] or [0])
            return ids, min(output, longest - len(ids) + 1)

        made = st.builds(
            prompt,
            st.integers(0, longest),
            st.lists(st.integers(0, 1), max_size=4),
            st.integers(1, longest),
        )
        return st.builds(
            lambda given, *others: Arrival(*given, *others),
            made,
            st.sampled_from(("", "", "a")),
            st.sampled_from((0, *DEPTHS)),
            st.sampled_from((False, False, True)),
            st.integers(0, 40),
            st.sampled_from((0, 0, 0, 1, 3, 9)),
        )

    change = st.one_of(
        st.tuples(st.just("pages"), st.integers(smallest, 20)),
        st.tuples(st.just("budget"), st.sampled_from(DEPTHS)),
        st.tuples(st.just("model"), st.integers(0, 1)),
    )
    return World(
        pages,
        draw(st.integers(rows, 12)),
        rows,
        draw(st.lists(arrival(), min_size=2, max_size=14)),
        draw(st.dictionaries(st.integers(1, 50), change, max_size=4)),
    )


@dataclass
class Cell:
    """What a slot of the cache holds: keys and values of the last of `tokens`, in `layers` layers."""

    tokens: tuple[int, ...]
    model: int
    salt: str
    layers: int


@dataclass
class Run:
    """One world, lived through as an engine would. reused: tokens that were found; ended: who, in order."""

    world: World
    enabled: bool
    budget: int = 6
    model: int = 0
    reused: int = 0
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pages = PageAllocator(self.world.pages, PAGE_TOKENS)
        self.prefixes = Prefixes(self.pages, self.enabled)
        self.prefixes.serve("model 0")
        self.sequences = [
            Sequence(f"s{index}", a.prompt, SamplingParams(), a.output, a.depth, index + 1, cache_salt=a.salt)
            for index, a in enumerate(self.world.arrivals)
        ]
        self.scheduler = Scheduler(
            self.pages,
            self.world.step_tokens,
            self.world.rows,
            lambda sequence: min(sequence.requested_depth or self.budget, self.budget),
            self.prefixes,
            lambda sequence: self.world.arrivals[sequence.ordinal - 1].drawn,
        )

    def live(self) -> None:
        last = max(arrival.step for arrival in self.world.arrivals)
        for step in range(5000):
            self._arrive(step)
            self._change(*self.world.changes.get(step, ("", 0)))
            plan = self.scheduler.plan()
            assert plan.tokens <= self.world.step_tokens
            for row in plan.rows:
                self._read(row)
            self._check()
            for row in plan.rows:
                self._write(row)
            if step > last and all(sequence.state is State.FINISHED for sequence in self.sequences):
                break
        self._check()

    def _arrive(self, step: int) -> None:
        for arrival, sequence in zip(self.world.arrivals, self.sequences, strict=True):
            if arrival.step == step:
                self.scheduler.add(sequence)
            aborted = arrival.abort and step == arrival.step + arrival.abort
            if aborted and sequence.state is not State.FINISHED:
                self.scheduler.finish(sequence)

    def _change(self, kind: str, to: int) -> None:
        if kind == "pages":
            moves = self.scheduler.resize(max(to, self.pages.used))
            moved = {
                (moves[page], place): cell for (page, place), cell in self.cells.items() if page in moves
            }
            self.cells |= moved
            self.cells = {at: cell for at, cell in self.cells.items() if at[0] < self.pages.capacity}
        elif kind == "budget":
            self.budget = to
            self.prefixes.lower(to)
            for sequence in self.sequences:
                sequence.lower(to)
            for cell in self.cells.values():
                cell.layers = min(cell.layers, to)
        elif kind == "model":
            self.scheduler.preempt_all()
            self.prefixes.clear()
            self.cells.clear()
            self.model = to
            self.prefixes.serve(f"model {to}")
            for sequence in self.scheduler.waiting:
                sequence.forget_depth()

    def _read(self, row: Row) -> None:
        """All that attention would read was written of these tokens, under this salt, deep enough."""
        sequence = row.sequence
        assert row.count > 0
        for place in range(row.start):
            cell = self.cells[sequence.pages[place // PAGE_TOKENS], place % PAGE_TOKENS]
            assert cell.tokens == sequence.tokens(0, place + 1)
            assert (cell.model, cell.salt) == (self.model, sequence.cache_salt)
            assert cell.layers >= sequence.depth
        if not sequence.output_ids and not sequence.preemptions:
            self.reused += sequence.prefix_hits
            assert not (sequence.drawn and sequence.prefix_queries)

    def _write(self, row: Row) -> None:
        """As the engine would: everything is computed, each sampling row gets a token."""
        sequence = row.sequence
        for place in range(row.start, row.start + row.count):
            page = sequence.pages[place // PAGE_TOKENS]
            assert self.pages.holders(page) == 1
            assert page not in self.prefixes._by_page
            tokens = sequence.tokens(0, place + 1)
            at = page, place % PAGE_TOKENS
            self.cells[at] = Cell(tokens, self.model, sequence.cache_salt, sequence.depth)
        sequence.advance(row.count)
        if row.samples:
            sequence.append(sum(sequence.tokens(0, sequence.length)) % 2, SERVED)
            if len(sequence.output_ids) == sequence.max_tokens:
                self.scheduler.finish(sequence)

    def _check(self) -> None:
        """References are exact, nothing leaks, and what is kept is what it is kept as."""
        pages, running = self.pages, self.scheduler.running
        held = Counter(chain.from_iterable(sequence.pages for sequence in running))
        assert held == {page: pages.holders(page) for page in held}
        assert all(len(set(sequence.pages)) == len(sequence.pages) for sequence in running)
        assert pages.used == len(held)
        assert pages.used + pages.free == pages.capacity
        kept = self.prefixes._by_page
        assert len(kept) == len(self.prefixes._by_content)
        assert pages.cached == sum(page not in held for page in kept)
        for page, known in kept.items():
            assert page == known.page < pages.capacity
            assert known.depth <= min(self.cells[page, at].layers for at in range(PAGE_TOKENS))


@settings(max_examples=examples(1000, heavy=True))
@given(worlds())
def test_whatever_is_read_was_written_for_it_and_no_page_leaks(world: World) -> None:
    run, plain = Run(world, enabled=True), Run(world, enabled=False)
    run.live()
    plain.live()
    assert run.pages.used == 0
    assert run.pages.free == run.pages.capacity
    assert plain.reused == plain.pages.cached == 0
    for arrival, one, other in zip(world.arrivals, run.sequences, plain.sequences, strict=True):
        assert arrival.abort or one.output_ids == other.output_ids
        assert arrival.abort or len(one.output_ids) == arrival.output


# -- one thing at a time -------------------------------------------------------------------------------------


def scheduler_of(pages: int, enabled: bool = True) -> Scheduler:
    allocator = PageAllocator(pages, PAGE_TOKENS)
    return Scheduler(allocator, 64, 8, lambda s: s.requested_depth or 6, Prefixes(allocator, enabled))


def ask(scheduler: Scheduler, prompt: tuple[int, ...], depth: int = 0, salt: str = "") -> int:
    """Runs a request for one token to its end; returns how many tokens it found."""
    sequence = Sequence("s", prompt, SamplingParams(), 1, depth, cache_salt=salt)
    scheduler.add(sequence)
    (row,) = scheduler.plan().rows
    assert row.start + row.count == len(prompt)
    sequence.advance(row.count)
    scheduler.finish(sequence)
    return row.start


@pytest.mark.parametrize(("tokens", "found"), [(1, 0), (2, 0), (3, 2), (8, 6), (9, 8)])
def test_whole_pages_are_found_and_the_last_token_is_always_computed(tokens: int, found: int) -> None:
    scheduler = scheduler_of(20)
    assert ask(scheduler, tuple(range(tokens))) == 0
    assert ask(scheduler, tuple(range(tokens))) == found


def test_a_page_is_found_only_behind_the_pages_before_it() -> None:
    scheduler = scheduler_of(20)
    ask(scheduler, (1, 2, 3, 4, 5))
    assert ask(scheduler, (9, 2, 3, 4, 5)) == 0
    assert ask(scheduler, (3, 4, 5)) == 0
    assert ask(scheduler, (1, 2, 9, 4, 5)) == 2


def test_pages_are_good_up_to_the_depth_that_wrote_them() -> None:
    scheduler, prompt = scheduler_of(20), tuple(range(9))
    assert [ask(scheduler, prompt, depth) for depth in (4, 2, 6, 6, 2)] == [0, 8, 0, 8, 8]
    scheduler.prefixes.lower(4)
    assert [ask(scheduler, prompt, depth) for depth in (4, 6, 6)] == [8, 0, 8]
    assert scheduler.pages.cached == 4


@pytest.mark.parametrize("first", [2, 6])
def test_of_two_that_computed_the_same_at_once_the_deeper_one_is_found(first: int) -> None:
    scheduler, prompt = scheduler_of(20), tuple(range(9))
    both = [Sequence(f"s{depth}", prompt, SamplingParams(), 1, depth) for depth in (first, 8 - first)]
    for sequence in both:
        scheduler.add(sequence)
    for row in scheduler.plan().rows:
        row.sequence.advance(row.count)
    for sequence in both:
        scheduler.finish(sequence)
    assert scheduler.pages.cached == 4
    assert ask(scheduler, prompt, 6) == 8


@pytest.mark.parametrize("other", ["b", "", "a\0", "\ud800", "A"])
def test_nothing_is_found_across_salts(other: str) -> None:
    scheduler, prompt = scheduler_of(20), tuple(range(9))
    assert [ask(scheduler, prompt, salt=salt) for salt in ("a", other, "a", other)] == [0, 0, 8, 8]


def test_another_model_or_precision_begins_with_nothing() -> None:
    scheduler, prompt = scheduler_of(20), tuple(range(9))
    for served in (("m", "float16"), ("m", "bfloat16"), ("n", "bfloat16")):
        scheduler.prefixes.serve(*served)
        assert scheduler.pages.cached == 0
        assert [ask(scheduler, prompt), ask(scheduler, prompt)] == [0, 8]
        scheduler.prefixes.serve(*served)
        assert ask(scheduler, prompt) == 8


def test_the_oldest_goes_first_and_the_end_of_a_text_before_its_beginning() -> None:
    scheduler = scheduler_of(8)
    old, new = (1, 1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2, 2)
    ask(scheduler, old)
    ask(scheduler, new)
    assert scheduler.pages.cached == 6
    ask(scheduler, (3, 3, 3, 3, 3, 3))  # takes the two pages that hold nothing, and one of the old text's
    assert ask(scheduler, new) == 6  # and one more, for its last token
    assert ask(scheduler, old) == 2


def test_cached_pages_count_as_free_and_go_when_the_cache_shrinks() -> None:
    scheduler = scheduler_of(8)
    ask(scheduler, (1, 2, 3, 4, 5))
    ask(scheduler, (6, 7, 8, 9))
    assert (scheduler.pages.used, scheduler.pages.free, scheduler.pages.cached) == (0, 8, 4)
    scheduler.resize(2)
    assert (scheduler.pages.free, scheduler.pages.cached) == (2, 2)
    assert ask(scheduler, (6, 7, 8)) == 2
    assert ask(scheduler, (1, 2, 3)) == 0
    assert ask(scheduler, (5, 6, 7, 8)) == 0  # as long as all there is


def test_what_was_preempted_finds_what_it_computed() -> None:
    scheduler = scheduler_of(20)
    sequence = Sequence("s", tuple(range(9)), SamplingParams(), 9)
    scheduler.add(sequence)
    for _ in range(4):
        (row,) = scheduler.plan().rows
        sequence.advance(row.count)
        sequence.append(7, SERVED)
    scheduler.preempt_all()
    (row,) = scheduler.plan().rows
    assert (row.start, row.count, row.samples) == (12, 1, True)
    assert (sequence.prefix_queries, sequence.prefix_hits) == (9, 0)  # of others it found nothing


def test_what_is_computed_again_is_found_again() -> None:
    scheduler, prompt = scheduler_of(20), tuple(range(9))
    sequence = Sequence("s", prompt, SamplingParams(), 9)
    scheduler.add(sequence)
    for _ in range(2):
        (row,) = scheduler.plan().rows
        assert row.start == 0
        sequence.advance(row.count)
        scheduler.preempt_all()
        scheduler.prefixes.clear()
    (row,) = scheduler.plan().rows
    sequence.advance(row.count)
    scheduler.finish(sequence)
    assert ask(scheduler, prompt) == 8


def test_who_is_drawn_is_decided_once_and_computes_the_whole_prompt() -> None:
    allocator, asked = PageAllocator(20, PAGE_TOKENS), list[str]()

    def drawn(sequence: Sequence) -> bool:
        asked.append(sequence.request_id)
        return len(asked) % 2 == 0

    scheduler = Scheduler(allocator, 64, 8, lambda s: 6, Prefixes(allocator), drawn)
    assert [ask(scheduler, tuple(range(9))) for _ in range(4)] == [0, 0, 8, 0]
    sequence = Sequence("again", tuple(range(9)), SamplingParams(), 1)
    scheduler.add(sequence)
    for _ in range(3):
        assert [row.start for row in scheduler.plan().rows] == [8]
        scheduler.preempt_all()
    assert asked.count("again") == 1


def test_off_it_finds_nothing_and_keeps_nothing() -> None:
    scheduler, prompt = scheduler_of(20, enabled=False), tuple(range(9))
    assert [ask(scheduler, prompt), ask(scheduler, prompt)] == [0, 0]
    assert scheduler.pages.cached == 0


def test_no_two_processes_hash_alike() -> None:
    """Whoever knows the code cannot look for two texts that meet."""
    hashes = set()
    for _ in range(2):
        prefixes = Prefixes(PageAllocator(4, PAGE_TOKENS))
        sequence = Sequence("s", (1, 2, 3), SamplingParams(), 1)
        prefixes.find(sequence, 6)
        hashes.update(sequence.contents)
    assert len(hashes) == 4
