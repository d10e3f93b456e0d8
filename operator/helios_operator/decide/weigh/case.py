"""The case that a reassessment weighs: what serves, what it remembers, what could serve instead.

Built once per pass and passed around whole, so that no function of this package needs a long list of
arguments. It must not weigh anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from helios_contract.limits import Limits
from helios_contract.results import Resolved

from helios_operator.api.types import Candidate, DeploymentSpec, ReassessmentStatus, SelectionPolicy
from helios_operator.decide.facts.candidates import Contender, backbones
from helios_operator.decide.facts.evidence import Evidence
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.snapshot import Revision, Snapshot
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Bench, Option


@dataclass(frozen=True)
class Case:
    snapshot: Snapshot
    bench: Bench
    fleet: Fleet
    now: datetime
    measuring_done: bool
    """Nothing that a choice waits for is missing in the history table."""
    timed: bool = True
    """No timing is missing there."""

    def remembering(self, memory: ReassessmentStatus) -> Case:
        """The same case with a newer memory."""
        deployment = self.snapshot.deployment
        status = replace(deployment.status, reassessment=memory)
        return replace(self, snapshot=replace(self.snapshot, deployment=replace(deployment, status=status)))

    @property
    def spec(self) -> DeploymentSpec:
        return self.bench.spec

    @property
    def memory(self) -> ReassessmentStatus:
        """What the API remembers of earlier decisions."""
        return self.snapshot.deployment.status.reassessment

    @property
    def contender(self) -> Contender | None:
        """Whose model serves; None when it is no candidate any more."""
        serving = self.fleet.serving
        return served_contender(serving, self.bench.contenders) if serving else None

    @property
    def departed(self) -> Contender | None:
        """Whose model serves though it is no candidate any more, as candidates on its backbone tell."""
        serving = self.fleet.serving
        for sibling in self.bench.contenders:
            resolved = sibling.resolved
            if serving and resolved and (sibling.candidate.uri, resolved.revision) == _model(serving):
                candidate = Candidate(serving.candidate, serving.model_uri, exits=serving.exits_uri or None)
                heads = replace(resolved, exits_digest=serving.exits_digest, exit_layers=serving.exit_layers)
                return replace(sibling, candidate=candidate, resolved=heads, qualities=())
        return None

    @property
    def described(self) -> Option | None:
        """What serves, candidate or not: to say what a change from it is, never to be chosen."""
        contender, serving = self.contender or self.departed, self.fleet.serving
        if contender is None or serving is None:
            return None
        return Option(contender, serving.layer_budget, serving.max_batch_size, None)

    def current(self, evidence: Evidence | None) -> Option | None:
        """What serves, as an option; judged like the others, though it may lie outside the bounds by now."""
        contender, serving = self.contender, self.fleet.serving
        if contender is None or serving is None:
            return None
        return select.judge(self.bench.option(contender, serving.layer_budget, evidence), self.spec)

    def allowed(self, evidence: Evidence | None) -> tuple[Option, ...]:
        """Every option that the spec lets be chosen, judged, best first."""
        options = self.bench.options(evidence)
        if self.spec.selection.policy is SelectionPolicy.PINNED:
            options = tuple(o for o in options if o.contender.name == self.spec.selection.candidate)
        return select.choose(options, self.spec).judged

    @property
    def several_backbones(self) -> bool:
        return len(backbones(self.bench.contenders)) > 1

    @property
    def serves_full_depth(self) -> bool:
        resolved, serving = self.resolved, self.fleet.serving
        return bool(resolved and serving and serving.layer_budget >= resolved.num_layers)

    @property
    def resolved(self) -> Resolved | None:
        """Of the model that serves."""
        contender = self.contender or self.departed
        return contender.resolved if contender else None

    @property
    def revision(self) -> Revision:
        if self.fleet.routed is None:
            raise ValueError("nothing serves")
        return self.fleet.routed

    def must_leave(self, current: Option | None) -> str:
        """Why the spec no longer allows what serves; "" while it does."""
        if current is None:
            return "what serves is not a candidate any more"
        if not current.contender.competes:
            why = current.contender.turned_away
            return f"{current.contender.name} is out: {why.message if why else ''}"
        if current.service not in {option.service for option in self.allowed(None)}:
            return f"{current} is outside what the spec allows now"
        return ""


def _model(limits: Limits) -> tuple[str, str]:
    return (limits.model_uri, limits.model_revision)


def served_contender(limits: Limits, contenders: tuple[Contender, ...]) -> Contender | None:
    """By what it is, not by its name."""
    for contender in contenders:
        resolved = contender.resolved
        if resolved and (contender.candidate.uri, resolved.revision, resolved.exits_digest) == (
            limits.model_uri,
            limits.model_revision,
            limits.exits_digest,
        ):
            return contender
    return None
