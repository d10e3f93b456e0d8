"""The case that a reassessment weighs: the scene, and what is remembered of earlier decisions.

Built by `decide` and passed around whole, so that no function of this package needs a long list of arguments.
The memory grows within a pass, the scene does not. It must not weigh anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from helios_contract.results import Resolved
from helios_contract.serves import REFERENCE, Precision
from helios_contract.telemetry import AuditRow

from helios_operator.api.types import DeploymentSpec, ReassessmentStatus
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import Evidence, LiveEvidence, ProfileEvidence
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Revision, Snapshot
from helios_operator.decide.weigh.options import Bench, Option
from helios_operator.decide.weigh.scene import Scene


@dataclass(frozen=True)
class Case:
    """`memory`: what the API remembers, and what this pass adds to it."""

    scene: Scene
    memory: ReassessmentStatus

    def remembering(self, memory: ReassessmentStatus) -> Case:
        return replace(self, memory=memory)

    # -- what is seen ----------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        return self.scene.snapshot

    @property
    def bench(self) -> Bench:
        return self.scene.bench

    @property
    def fleet(self) -> Fleet:
        return self.scene.fleet

    @property
    def now(self) -> datetime:
        return self.scene.now

    @property
    def spec(self) -> DeploymentSpec:
        return self.scene.spec

    @property
    def policy(self) -> Policy:
        return self.scene.policy

    @property
    def measuring_done(self) -> bool:
        return self.scene.measuring_done

    def live(
        self, audits: tuple[AuditRow, ...], contender: Contender, *, is_other_traffic: bool = False
    ) -> LiveEvidence:
        """What these audits of the pods that serve it tell."""
        return LiveEvidence(audits, contender, self.profiles, self.policy, self.precision, is_other_traffic)

    # -- what follows from it --------------------------------------------------------------------------------

    @property
    def contender(self) -> Contender | None:
        return self.scene.contender

    @property
    def precision(self) -> Precision:
        """In which it serves."""
        return self.fleet.serving.precision if self.fleet.serving else REFERENCE

    @property
    def profiles(self) -> ProfileEvidence | None:
        return self.scene.profiles

    @property
    def several_backbones(self) -> bool:
        return self.scene.several_backbones

    @property
    def several_precisions(self) -> bool:
        """May be chosen, on the serving backbone or on another."""
        return any(len(c.precisions) > 1 for c in self.bench.contenders if c.competes)

    @property
    def must_leave(self) -> str:
        return self.scene.must_leave

    def current_on(self, evidence: Evidence | None) -> Option | None:
        return self.scene.current_on(evidence)

    def allowed_on(self, evidence: Evidence | None) -> tuple[Option, ...]:
        return self.scene.allowed_on(evidence)

    @property
    def described(self) -> Option | None:
        """What serves, candidate or not: to say what a change from it is, never to be chosen."""
        contender, serving = self.contender or self.scene.departed, self.fleet.serving
        if contender is None or serving is None:
            return None
        return Option(
            contender, serving.layer_budget, serving.max_batch_size, None, precision=serving.precision
        )

    @property
    def resolved(self) -> Resolved | None:
        """Of the model that serves."""
        contender = self.contender or self.scene.departed
        return contender.resolved if contender else None

    @property
    def serves_full_depth(self) -> bool:
        resolved, serving = self.resolved, self.fleet.serving
        return bool(resolved and serving and serving.layer_budget >= resolved.num_layers)

    @property
    def revision(self) -> Revision:
        if self.fleet.routed is None:
            raise ValueError("nothing serves")
        return self.fleet.routed
