"""How much of a backbone may be in memory while its steps are timed: of one alone, or of one in several
precisions.

Called by `step_bench.py` and `timing.py`; the law stands in `helios_server.planning.memory`. It loads
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helios_contract.results import MemoryFacts
from helios_contract.serves import Precision

from helios_server.errors import OutOfMemoryBudget
from helios_server.planning.memory import MIB, capacity, limit_for_rows
from helios_server.profile.workload import BATCHES

_MAX_ROWS = BATCHES[-1]
_FEW_ROWS, _ROW_TOKENS = 4, 64
"""Least room: a depth with less tells too little about batches and contexts."""
_MAX_TOKENS = 8192
_LEAST_SHARE = 1 / 3
"""Of the layers that each could have alone: with fewer, too much of a step's time would be foretold."""


@dataclass(frozen=True, slots=True)
class Extent:
    """layers: in memory; rows: that decode together; tokens: of KV cache."""

    layers: int
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Outline:
    """What a backbone takes in one precision, measured with nothing else of size in the process. num_layers:
    that it has; context: tokens to be served; exit_bytes: of a bundle of each kind of head, together."""

    precision: Precision
    facts: MemoryFacts
    num_layers: int
    context: int
    exit_bytes: int

    def need(self, layers: int, rows: int, row_tokens: int) -> int:
        """Bytes beside the process's own."""
        asked = {"tokens_per_request": row_tokens, "exit_bytes": self.exit_bytes}
        needed = limit_for_rows(self.facts, layers=layers, rows=rows, **asked)
        return needed - self.facts.process_start_bytes

    def within(self, layers: int, size: int) -> Extent:
        """What so many bytes beside the process's own hold at this depth: as many rows as have a page each,
        for a few of them are timed with longer contexts."""
        asked = {"tokens_per_request": self.facts.page_tokens, "exit_bytes": self.exit_bytes}
        limit = self.facts.process_start_bytes + size
        fits = capacity(self.facts, limit_bytes=limit, layers=layers, max_rows=_MAX_ROWS, **asked)
        return Extent(layers, fits.rows, min(_MAX_TOKENS, fits.tokens))


def alone(outline: Outline, limit_bytes: int) -> Extent:
    """As deep as fits with the least room. Raises OutOfMemoryBudget where not one layer does."""
    size = limit_bytes - outline.facts.process_start_bytes
    for layers in range(outline.num_layers, 0, -1):
        if size >= outline.need(layers, _FEW_ROWS, _ROW_TOKENS):
            return outline.within(layers, size)
    need = outline.facts.process_start_bytes + outline.need(1, _FEW_ROWS, _ROW_TOKENS)
    problem = f"timing one layer takes {need // MIB + 1} MiB, {limit_bytes // MIB} are given"
    fix = (
        f"Raise it, or lower the context of {outline.context} tokens (--max-context, limits.maxContextTokens)"
    )
    raise OutOfMemoryBudget("memory-mib", problem, fix)


def together(outlines: Sequence[Outline], limit_bytes: int) -> tuple[Extent, ...] | None:
    """What of each fits into one process, equally deep, with no fewer rows than the one has that has fewest
    alone. None: less than is worth timing."""
    if not outlines:
        return ()
    by_itself = [alone(outline, limit_bytes) for outline in outlines]
    rows = min(extent.rows for extent in by_itself)
    depths = [extent.layers for extent in by_itself]
    size = limit_bytes - max(outline.facts.process_start_bytes for outline in outlines)
    for layers in range(min(depths), 0, -1):
        if layers < _LEAST_SHARE * max(depths):
            return None
        needs = [outline.need(layers, rows, outline.facts.page_tokens) for outline in outlines]
        spare = (size - sum(needs)) // len(needs)
        if spare >= 0:
            return tuple(
                outline.within(layers, need + spare) for outline, need in zip(outlines, needs, strict=True)
            )
    return None
