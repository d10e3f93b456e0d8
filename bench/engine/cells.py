"""Which measurement comes next, when there is not time for all of them.

A cell is one shape of prompts at one batch; measuring it once means every engine once, in turn. Always next
is the cell that has taken the least time, its next round included: cheap cells get all their rounds, dear
ones come last and may be left out, which is told. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Cell:
    """prompt, new: tokens of each row."""

    prompt: int
    new: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.prompt}-{self.new}-batch-{self.batch}"

    @property
    def work(self) -> int:
        """What it costs, roughly: a token of a prompt takes a sixth of a new one's time alone, and rows that
        decode together share the weights that are read."""
        return self.batch * self.prompt + self.new * (6 + self.batch)


@dataclass
class Schedule:
    """Rounds of cells until `seconds` are spent."""

    cells: Sequence[Cell]
    rounds: int
    seconds: float
    _spent: dict[Cell, list[float]] = field(default_factory=dict)

    def next(self) -> Cell | None:
        """None: nothing is left that would fit."""
        left = self.seconds - sum(map(sum, self._spent.values()))
        open_cells = [cell for cell in self.cells if self.done(cell) < self.rounds]
        fitting = [cell for cell in open_cells if self._guess(cell) <= left]
        return min(fitting, key=self._after, default=None)

    def took(self, cell: Cell, seconds: float) -> None:
        self._spent.setdefault(cell, []).append(seconds)

    def done(self, cell: Cell) -> int:
        """Rounds measured."""
        return len(self._spent.get(cell, ()))

    def left_out(self) -> Iterator[Cell]:
        """Cells that were never measured."""
        return (cell for cell in self.cells if not self.done(cell))

    def _after(self, cell: Cell) -> tuple[float, Cell]:
        return sum(self._spent.get(cell, ())) + self._guess(cell), cell

    def _guess(self, cell: Cell) -> float:
        """Seconds of the cell's next round: as its last, or by the work of the cell that is nearest in it."""
        if cell in self._spent:
            return self._spent[cell][-1]
        if not self._spent:
            return 0.0 if cell == min(self.cells, key=lambda other: other.work) else cell.work * 1e-3
        nearest = min(self._spent, key=lambda other: abs(other.work - cell.work))
        return self._spent[nearest][-1] * cell.work / nearest.work
