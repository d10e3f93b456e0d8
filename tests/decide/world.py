"""The simulated world, each of whose passes is held to the words that the API documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot
from helios_operator.simulate import world as simulated
from helios_operator.simulate.world import HARDWARE, START

from tests.decide.documented import check_words

__all__ = ["HARDWARE", "LISTENERS", "START", "World"]

LISTENERS: list[Callable[[Snapshot, Plan], None]] = []
"""Told of every pass of every world."""


@dataclass
class World(simulated.World):
    """As the product has it, but that no pod audits more after an alarm: what decisions do with few audits is
    what most stories are of."""

    hastens: bool = False

    def heard(self, snapshot: Snapshot, plan: Plan) -> None:
        check_words(plan)
        for hear in LISTENERS:
            hear(snapshot, plan)
