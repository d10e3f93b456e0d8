"""The loop over traffic in discrete events: requests queue in pods, passes decide, Plans are applied.

Called by `helios simulate`. What a run is made of is all in its arguments; equal ones give equal outcomes. It
must not read a clock or a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import cycle

from helios_contract.limits import Limits

from helios_operator.api.identity import prompts_digest
from helios_operator.api.types import DeploymentSpec
from helios_operator.decide import decide
from helios_operator.decide.facts.candidates import key as _key
from helios_operator.decide.plan import Plan
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.snapshot import JobPhase, PromptSource, Snapshot
from helios_operator.simulate.ledger import Figures, Ledger
from helios_operator.simulate.measured import MeasuredModel
from helios_operator.simulate.profiles import Profiles
from helios_operator.simulate.serving import ServingPod
from helios_operator.simulate.traffic import Request
from helios_operator.simulate.truth import Model, Text
from helios_operator.simulate.world import World

_WARM_UP_SECONDS, _QUIET_PASSES = 120.0, 10
_PATIENCE_SECONDS = 900.0
"""After the last arrival, for what still runs."""


@dataclass(frozen=True)
class Clocks:
    """began: of the first arrival; seconds: between two passes, until a pod or a Job is through."""

    began: datetime
    passes: float = 1.0
    pod: float = 5.0
    job: float = 30.0


@dataclass(frozen=True)
class Decided:
    """`at`: seconds after the first arrival; below 0 before it."""

    at: float
    kind: str
    """Decision or event."""
    what: str
    reason: str
    message: str


@dataclass(frozen=True)
class Changed:
    """A change that was made: seconds after the first arrival, and what serves since."""

    at: float
    kind: str
    to: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    figures: Figures
    decisions: tuple[Decided, ...]
    changes: tuple[Changed, ...]

    @property
    def changes_per_hour(self) -> float:
        """After the first selection."""
        made = sum(change.kind != "Select" for change in self.changes)
        return round(made / max(self.figures.seconds, 1.0) * 3600, 2)


@dataclass(kw_only=True)
class Replay(World):
    """A world of measured models, whose pods serve requests at the times of the law."""

    profiles: Profiles
    clocks: Clocks
    policy: Policy = DEFAULT
    decisions: list[Decided] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        spec: DeploymentSpec,
        profiles: Profiles,
        clocks: Clocks,
        policy: Policy = DEFAULT,
        memory_mib: int = 0,
    ) -> Replay:
        """memory_mib: for all pods; 0: a machine as the profiled one for each replica."""
        made = cls(
            spec,
            dict(profiles.truth),
            profiles=profiles,
            clocks=clocks,
            policy=policy,
            memory_mib=memory_mib or profiles.hardware.memory_mib * max(1, spec.replicas),
            now=clocks.began - timedelta(seconds=_WARM_UP_SECONDS),
            start_seconds=clocks.pod,
            job_seconds=clocks.job,
            hardware=profiles.hardware,
            task_set=profiles.tasks if spec.profiling.tasks else None,
            decide=partial(decide, policy=policy),
            pod=ServingPod,
        )
        made.rows = dict(profiles.rows)
        return made

    def __post_init__(self) -> None:
        super().__post_init__()
        by_name = {c.name: self.truth[k] for c in self.spec.candidates if (k := _key(c)) in self.truth}
        self.ledger = Ledger(by_name, self.spec)
        self.began = self.clocks.began
        self._models: dict[tuple[str, str], Model] = {}
        self._confidences: dict[tuple[int, int, int], float | None] = {}
        self._said: set[tuple[str, ...]] = set()
        self._held: list[Request] = []

    @property
    def clock(self) -> float:
        """Seconds after the first arrival."""
        return (self.now - self.began).total_seconds()

    # -- the run ---------------------------------------------------------------------------------------------

    def serve_all(self, requests: Iterable[Request]) -> Outcome:
        self._warm_up()
        came, coming = 0, iter(requests)
        waits = next(coming, None)
        while waits is not None:
            until, due = self.clock + self.clocks.passes, []
            while waits is not None and waits.arrived <= until:
                due.append(waits)
                waits = next(coming, None)
            came += len(due)
            self._hand_out(due)
            plan = self.step(self.clocks.passes)
            if waits is not None:
                self._pass_over(plan, waits.arrived)
        patience = self.clock + _PATIENCE_SECONDS
        while self._busy() and self.clock < patience:
            self._hand_out([])
            self.step(self.clocks.passes)
        return Outcome(self.ledger.figures(came), tuple(self.decisions), tuple(self.changes))

    def _warm_up(self) -> None:
        """Until nothing is left to do before requests come, or they do."""
        quiet = 0
        while self.clock < 0 and quiet < _QUIET_PASSES:
            plan = self.step(self.clocks.passes)
            waits = plan.actions or not any(pod.ready for pod in self._pods()) or self._measuring()
            quiet = 0 if waits else quiet + 1
        self.now = max(self.now, self.began)

    def _pass_over(self, plan: Plan, arrives: float) -> None:
        """Passes of which nothing could come: no request is there, no pod or Job is on its way, and nothing
        is due by the clock."""
        pods = [pod for revision in self.revisions.values() for pod in revision.pods]
        if self._busy() or plan.actions or self._measuring() or not all(pod.ready for pod in pods):
            return
        due = min(arrives - self.clock, plan.requeue_after_seconds or math.inf)
        passes = math.floor(due / self.clocks.passes) - 1
        if passes > 0 and not math.isinf(due):
            self.now += timedelta(seconds=passes * self.clocks.passes)

    def _measuring(self) -> bool:
        return any(job.phase is JobPhase.RUNNING for job, _ in self.jobs.values())

    def _hand_out(self, due: Sequence[Request]) -> None:
        """To the pods that serve, in turns; while there is none, the front address holds them."""
        self._held += due
        pods = [p for p in self._pods() if p.ready and not p.draining]
        if pods:
            first = self._turn % len(pods)
            for pod, request in zip(cycle([*pods[first:], *pods[:first]]), self._held, strict=False):
                pod.take(request)
            self._turn += len(self._held)
            self._held = []

    _turn = 0

    def _pods(self) -> Iterator[ServingPod]:
        for revision in self.revisions.values():
            if revision.routed:
                yield from (pod for pod in revision.pods if isinstance(pod, ServingPod))

    def _busy(self) -> bool:
        pods = (pod for revision in self.revisions.values() for pod in revision.pods)
        queues = (pod.queue for pod in pods if isinstance(pod, ServingPod) and pod.queue)
        return bool(self._held) or not all(queue.idle for queue in queues)

    # -- what the world asks for -----------------------------------------------------------------------------

    def given_prompts(self) -> PromptSource | None:
        """Those of a ConfigMap are taken to be the ones that were profiled last."""
        prompts = self.spec.profiling.prompts
        if prompts.inline:
            return PromptSource(prompts_digest(prompts.inline), len(prompts.inline))
        if prompts.live:
            return None
        texts = self.profiles.newest
        return PromptSource(texts[0].domain, len(texts))

    def given_texts(self) -> Sequence[Text]:
        given = self.given_prompts()
        return self.profiles.domains.get(given.digest if given else "", self.profiles.newest)

    def model_of(self, limits: Limits) -> Model:
        wanted = (limits.model_uri, limits.exits_uri)
        if wanted not in self._models:
            self._models[wanted] = super().model_of(limits)
        return self._models[wanted]

    def confidence(self, text: Text, model: Model, limits: Limits) -> float | None:
        """Of a text at the depth that serves: the profile's mean, in proportion to how well the exit does on
        it. None: the profile does not say."""
        wanted = (id(text), id(model), limits.layer_budget)
        if wanted not in self._confidences:
            self._confidences[wanted] = _confidence(text, model, limits)
        return self._confidences[wanted]

    # -- what is heard ---------------------------------------------------------------------------------------

    def heard(self, snapshot: Snapshot, plan: Plan) -> None:
        at = round(self.clock, 3)
        was, now = snapshot.deployment.status.reassessment, plan.status.reassessment
        decided = now.decision is not None and now.last_time != was.last_time
        if now.decision is not None and decided:
            self.decisions.append(Decided(at, "decision", now.decision.value, now.reason, now.message))
        for event in plan.events:
            if not (decided and event.message.endswith(now.message)):  # it would say the same again
                self.decisions.append(Decided(at, "event", event.type, event.reason, event.message))
        for entry in plan.status.history:
            told = (entry.time.isoformat(), entry.kind.value, entry.result, str(entry.to))
            if entry.result == "Promoted" and told not in self._said:
                self._said.add(told)
                to = entry.to
                served = f"{to.candidate} at {to.layer_budget} in {to.weight_dtype}/{to.kv_cache_dtype}"
                self.changes.append(Changed(at, entry.kind.value, served, entry.reason))


def _confidence(text: Text, model: Model, limits: Limits) -> float | None:
    if not isinstance(model, MeasuredModel):
        return None
    layers = limits.layer_budget or model.backbone.layers
    found = model.exit(text.domain, layers, limits.precision)
    if not found.mean_confidence_milli:
        return None
    full = model.exit(text.domain, model.backbone.layers, limits.precision)
    usual = full.millibits / found.millibits
    own = text.millibits(model, model.backbone.layers) / text.millibits(model, layers, limits.precision)
    return min(0.999, found.mean_confidence_milli / 1000 * own / usual)
