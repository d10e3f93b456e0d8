"""The rule of memory: a pass remembers nothing that the API does not hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from helios_operator.api import parse, serialize
from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot

from tests.decide.properties.rules.rule import Rule
from tests.decide.world import World


@dataclass
class MemoryIsInTheApi(Rule):
    """What the API holds of a deployment is all that a decision needs: read back from it, the plan is the
    same."""

    every: int = 5
    passes: int = 0

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        self.passes += 1
        if self.passes % self.every:
            return
        read_back = parse.deployment(serialize.deployment(snapshot.deployment))
        assert read_back.status == snapshot.deployment.status
        assert made.decide(replace(snapshot, deployment=read_back), made.now) == plan
