"""What a pass sees, and what follows from it whatever is remembered: who serves, what could serve instead.

Built once per pass; every answer is computed once, when it is first asked for. Read through `Case`, which
adds the memory. It must not weigh anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from helios_contract.limits import Limits
from helios_contract.serves import Precision

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Candidate, DeploymentSpec, SelectionPolicy
from helios_operator.decide.facts import prompts
from helios_operator.decide.facts.candidates import Contender, backbones
from helios_operator.decide.facts.evidence import Evidence, ProfileEvidence, newest_common
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.plan import Verdict
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Bench, Option


@dataclass(frozen=True)
class Scene:
    """`measuring_done`: nothing that a choice waits for is missing in the history table. `looked`, `timed`:
    no Inspect, or no timing either, is missing that the first pod would wait for."""

    snapshot: Snapshot
    bench: Bench
    fleet: Fleet
    now: datetime
    measuring_done: bool
    looked: bool = True
    timed: bool = True

    @property
    def spec(self) -> DeploymentSpec:
        return self.bench.spec

    @property
    def policy(self) -> Policy:
        return self.bench.policy

    @cached_property
    def contender(self) -> Contender | None:
        """Whose model serves; None when it is no candidate any more."""
        serving = self.fleet.serving
        return served_contender(serving, self.bench.contenders) if serving else None

    @cached_property
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

    @cached_property
    def profiles(self) -> ProfileEvidence | None:
        competing = [contender for contender in self.bench.contenders if contender.competes]
        return newest_common(competing, self.now, self.policy)

    @cached_property
    def several_backbones(self) -> bool:
        return len(backbones(self.bench.contenders)) > 1

    # -- options ---------------------------------------------------------------------------------------------

    @cached_property
    def current(self) -> Option | None:
        """What serves, as an option, judged on no evidence; it may lie outside the bounds by now."""
        return self.current_on(None)

    def current_on(self, evidence: Evidence | None) -> Option | None:
        contender, serving = self.contender, self.fleet.serving
        if contender is None or serving is None:
            return None
        return select.judge(
            self.bench.option(contender, serving.layer_budget, serving.precision, evidence),
            self.spec,
            self.policy,
        )

    @cached_property
    def must_leave(self) -> str:
        """Why the spec no longer allows what serves; "" while it does."""
        current = self.current
        if current is None:
            return "what serves is not a candidate any more"
        if not current.contender.competes:
            why = current.contender.turned_away
            return f"{current.contender.name} is out: {why.message if why else ''}"
        if current.service not in self.allowed_services:
            return f"{current} is outside what the spec allows now"
        return ""

    @cached_property
    def allowed_services(self) -> frozenset[tuple[str, str, int, Precision]]:
        """That the spec lets be chosen, whatever they are worth."""
        return frozenset(option.service for option in self._chosen_from(self.bench.options(None)))

    @cached_property
    def judged_on_profiles(self) -> tuple[Option, ...]:
        """Every option, best first."""
        return self._ranked_on(self.profiles)

    def judged_on(self, evidence: Evidence | None) -> tuple[Option, ...]:
        return self.judged_on_profiles if evidence is self.profiles else self._ranked_on(evidence)

    def _ranked_on(self, evidence: Evidence | None) -> tuple[Option, ...]:
        """What is timed and waits for a quality that nothing can tell says so."""
        ranked = select.ranked(self.bench.options(evidence), self.spec, self.policy)
        lacking = prompts.missing(self.snapshot)
        if not lacking:
            return ranked
        unknown = Verdict(False, Reason.NO_PROMPTS, f"quality cannot be measured: {lacking}")
        return tuple(
            replace(option, verdict=unknown)
            if option.performance and option.verdict.reason == Reason.NOT_PROFILED
            else option
            for option in ranked
        )

    def allowed_on(self, evidence: Evidence | None) -> tuple[Option, ...]:
        """Of them, those that the spec lets be chosen."""
        return self._chosen_from(self.judged_on(evidence))

    def _chosen_from(self, options: tuple[Option, ...]) -> tuple[Option, ...]:
        if self.spec.selection.policy is not SelectionPolicy.PINNED:
            return options
        return tuple(o for o in options if o.contender.name == self.spec.selection.candidate)


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
