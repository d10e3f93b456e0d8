"""Which tokens run in the next step: one budget of new tokens, running sequences first, long prompts in
chunks.

Called by the engine between steps. It must touch no tensor and read no clock: it sees sequences and page
counts only, so that a property test can run thousands of schedules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from helios_server.engine.pages import PageAllocator
from helios_server.engine.prefixes import Prefixes
from helios_server.engine.sequence import Sequence, State


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of one sequence to run: tokens [start, start + count).

    samples: its last token yields a new one.
    """

    sequence: Sequence
    start: int
    count: int
    samples: bool


@dataclass(frozen=True)
class StepPlan:
    """One step.

    rows: oldest admission first; admitted, preempted: sequences that changed state to make it so.
    """

    rows: tuple[Row, ...]
    admitted: tuple[Sequence, ...] = ()
    preempted: tuple[Sequence, ...] = ()

    @property
    def tokens(self) -> int:
        """New tokens in the step."""
        return sum(row.count for row in self.rows)


class Scheduler:
    """Owns the queue and the running rows. `depth_for(sequence)` says at which depth a newcomer runs, in
    layers; `drawn(sequence)` whether its prompt is scored, and so computed whole: asked once.

    step_tokens: new tokens in a step; max_rows: sequences that run at once (the engine keeps it <=
    step_tokens, so that every running row can decode in every step); prefixes: None reuses nothing.
    """

    def __init__(
        self,
        pages: PageAllocator,
        step_tokens: int,
        max_rows: int,
        depth_for: Callable[[Sequence], int],
        prefixes: Prefixes | None = None,
        drawn: Callable[[Sequence], bool] = lambda sequence: False,
    ) -> None:
        self.pages = pages
        self.prefixes = prefixes or Prefixes(pages, enabled=False)
        self.step_tokens = step_tokens
        self.max_rows = max_rows
        self.admitting = True
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self._depth_for = depth_for
        self._drawn = drawn

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence at the end of the queue."""
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is, and its pages back."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        self.prefixes.remember(sequence)
        self.pages.give_back(sequence.finish())

    def preempt_all(self) -> tuple[Sequence, ...]:
        """Sends every running sequence back to the queue, in order of admission."""
        preempted = tuple(self.running)
        while self.running:
            self._preempt(self.running[-1])
        return preempted

    def resize(self, pages: int) -> dict[int, int]:
        """Changes the pages that exist; returns the moves that the pool must make before the next step."""
        moves = self.pages.resize(pages)
        self.prefixes.move(moves)
        for sequence in self.running:
            sequence.move_pages(moves)
        return moves

    def plan(self) -> StepPlan:
        """The next step. Empty when there is nothing that can run."""
        rows: list[Row] = []
        preempted: list[Sequence] = []
        left = self._continue_running(rows, preempted)
        admitted = [] if preempted else self._admit(rows, left)
        return StepPlan(tuple(rows), tuple(admitted), tuple(preempted))

    def _continue_running(self, rows: list[Row], preempted: list[Sequence]) -> int:
        """Oldest first, so that the newest, which preemption takes, has never been granted a row.

        Returns tokens left.
        """
        left = self.step_tokens
        for sequence in self.running:
            self.prefixes.remember(sequence)
        pending = [sequence.pending for sequence in self.running]
        decoding = pending.count(1)
        for sequence, tokens in zip(tuple(self.running), pending, strict=True):
            if sequence.state is not State.RUNNING:
                continue
            if tokens == 1:
                decoding -= 1
            count = min(tokens, left - decoding)
            if count > 0 and self._make_room(sequence, sequence.computed + count, preempted):
                rows.append(Row(sequence, sequence.computed, count, samples=count == tokens))
                left -= count
        return left

    def _admit(self, rows: list[Row], left: int) -> list[Sequence]:
        admitted: list[Sequence] = []
        while self.admitting and self.waiting and left > 0 and len(self.running) < self.max_rows:
            sequence = self.waiting[0]
            depth = sequence.depth or self._depth_for(sequence)
            found = self._look_up(sequence, depth)
            needed = self.pages.pages_for(sequence.length) - len(found)
            # One page of growth for every running row: without it a newcomer is preempted as soon as it is
            # prefilled.
            if self.pages.free_beside(found) < needed + len(self.running):
                break
            self.waiting.popleft()
            sequence.admit(depth)
            self.pages.share(found)
            sequence.reuse(found, len(found) * self.pages.page_tokens)
            sequence.pages += self.pages.take(needed)
            self.running.append(sequence)
            admitted.append(sequence)
            count = min(sequence.pending, left)
            rows.append(Row(sequence, sequence.computed, count, samples=count == sequence.pending))
            left -= count
        return admitted

    def _look_up(self, sequence: Sequence, depth: int) -> list[int]:
        """Pages that hold its beginning. A prompt that is to be scored is computed whole, and whether it is
        was drawn before anybody knew what would be found.
        """
        if sequence.drawn is None:
            sequence.drawn = self._drawn(sequence)
        if not self.prefixes.enabled or (sequence.drawn and not sequence.output_ids):
            return []
        found = self.prefixes.find(sequence, depth)
        sequence.count_look_up(len(found) * self.pages.page_tokens)
        return found

    def _make_room(self, sequence: Sequence, tokens: int, preempted: list[Sequence]) -> bool:
        """Gets the pages that `tokens` tokens fill, from the newest sequences if need be.

        False: it was the newest.
        """
        missing = self.pages.pages_for(tokens) - len(sequence.pages)
        while missing > self.pages.free:
            newest = self.running[-1]
            self._preempt(newest)
            preempted.append(newest)
            if newest is sequence:
                return False
        if missing > 0:
            sequence.pages += self.pages.take(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.prefixes.remember(sequence)
        self.pages.give_back(sequence.preempt())
        self.waiting.appendleft(sequence)
