"""Which tokens a sequence has in its prompt or output, each one once: what a repetition penalty falls on.

Kept by a sequence that asks for a penalty, read by the sampler. It grows with each token, for a set of a long
prompt's tokens is too dear to make in each step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Seen:
    """ids: int64, in no order."""

    def __init__(self, token_ids: Iterable[int]) -> None:
        self._known = set(token_ids)
        self.ids = array("q", self._known)

    def add(self, token_id: int) -> None:
        """A token came."""
        if token_id not in self._known:
            self._known.add(token_id)
            self.ids.append(token_id)
