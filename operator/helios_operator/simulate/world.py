"""A small world in which Plans have consequences: pods start, take or refuse limits, serve, audit and raise
alarms; Jobs run and return what is true. Time is simulated, and nothing here knows how decisions are made.

Driven by `simulate.replay` and by the tests of the decisions. It must not read a clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from helios_contract import VERSION
from helios_contract.limits import Limits
from helios_contract.results import Resolved
from helios_contract.serves import Precision

from helios_operator.api.models import Model as HeliosModel
from helios_operator.api.rows import QualityRow, Row, TasksRow, TimingRow
from helios_operator.api.types import Candidate, Deployment, DeploymentSpec, DeploymentStatus
from helios_operator.decide import decide
from helios_operator.decide import plan as plans
from helios_operator.decide.facts.candidates import Key, key
from helios_operator.decide.plan import Action, Plan
from helios_operator.decide.snapshot import (
    Hardware,
    Job,
    JobKind,
    JobPhase,
    JobSpec,
    Pod,
    PromptSource,
    Revision,
    Snapshot,
    TaskSet,
)
from helios_operator.simulate import measurements
from helios_operator.simulate.pods import SimulatedPod
from helios_operator.simulate.truth import MadeUpText, Model, Text

START = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
HARDWARE = Hardware(None, 0, 16384, "a cpu", 2, "float16")


@dataclass
class SimulatedRevision:
    number: int
    limits: Limits
    replicas: int
    created: datetime
    routed: bool = False
    draining: bool = False
    template_current: bool = True
    pods: list[SimulatedPod] = field(default_factory=list)


@dataclass
class World:
    """`truth` by candidate key. Knobs: `starts` (a new pod becomes ready), `refuses` (what a pod says to
    limits; "" takes them), `fails` (what a Job says), `starts_jobs` (the API takes it), `stuck` (why a Job's
    pod finds no node), `start_seconds`, `job_seconds`, `misses` (a look at a pod that gets no answer), `skew`
    (of a pod's clock, by its name). `watch` sees every pass."""

    spec: DeploymentSpec
    truth: dict[Key, Model]
    memory_mib: int = 100_000
    seed: int = 0
    now: datetime = START
    starts: Callable[[Limits], bool] = lambda limits: True
    refuses: Callable[[Limits], str] = lambda limits: ""
    refuses_all: str = ""
    fails: Callable[[JobSpec], str] = lambda job: ""
    starts_jobs: Callable[[JobSpec], bool] = lambda job: True
    stuck: Callable[[JobSpec], str] = lambda job: ""
    misses: Callable[[SimulatedPod], bool] = lambda pod: False
    skew: Callable[[str], timedelta] = lambda name: timedelta(0)
    start_seconds: float = 2.0
    job_seconds: float = 3.0
    stream_seconds: float = 3.0
    rows_that_fit: int = 1000
    process_start_bytes: int = 0
    contract_version: int = VERSION
    audits_own: bool = False
    """Pods compare with full depth in the precision that serves."""
    hastens: bool = True
    """Pods audit more requests while a shift has few audits."""
    times: Callable[[Precision], bool] = lambda precision: True
    """Timing Jobs leave the others out."""
    scores: Callable[[Precision], bool] = lambda precision: True
    """The same of Quality Jobs."""
    unheld: Callable[[JobKind, Precision], str] = lambda kind, precision: ""
    """Why a Job that measures several leaves one out, in its own words; "" where it does not."""
    claims: tuple[str, ...] | None = None
    task_set: TaskSet | None = None
    passes: Callable[[Candidate, int, Precision], Sequence[bool]] = lambda candidate, layer, precision: ()
    """What an option makes of the tasks."""
    accelerators_free: int | None = None
    cards: int | None = None
    """Accelerators that there are; each pod and each Job that needs one takes one."""
    hardware: Hardware = HARDWARE
    performance_version: int = 1
    device_memory_bytes: int = 0
    """What Timing Jobs find that the accelerator has."""
    models: tuple[HeliosModel, ...] = ()
    watch: list[Callable[[World, Snapshot, Plan], None]] = field(default_factory=list)
    decide: Callable[[Snapshot, datetime], Plan] = decide
    pod: Callable[..., SimulatedPod] = SimulatedPod
    """Made of name, revision, when it started, limits and world."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.deployment = Deployment("chat", "default", "uid-1", 1, self.spec)
        self.rows: dict[str, Row] = {}
        self.jobs: dict[str, tuple[Job, datetime]] = {}
        self.revisions: dict[int, SimulatedRevision] = {}
        self.sets: dict[str, Sequence[Text]] = {}
        self.actions: list[Action] = []
        self.lost = self.finished = self.boots = 0
        self.domains: list[str] = []

    # -- what drives it -------------------------------------------------------------------------

    def step(self, seconds: float = 0.5) -> Plan:
        """Time passes, then one pass of the loop."""
        plan = self.look(seconds)
        self.apply(plan)
        return plan

    def look(self, seconds: float = 0.5) -> Plan:
        """Time passes, and a pass decides; nothing is applied."""
        self.now += timedelta(seconds=seconds)
        self._advance()
        snapshot = self.snapshot()
        plan = self.decide(snapshot, self.now)
        self.heard(snapshot, plan)
        for watch in self.watch:
            watch(self, snapshot, plan)
        return plan

    def heard(self, snapshot: Snapshot, plan: Plan) -> None:
        """Of every pass, before anything is applied."""

    def run(self, seconds: float, every: float = 0.5) -> None:
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.step(every)

    def serve(self, requests: int, domain: str, each: float = 0.2) -> None:
        """Requests one after another, a pass after every few."""
        for index in range(requests):
            pods = [p for r in self.revisions.values() if r.routed for p in r.pods if p.ready]
            if not pods:
                self.lost += 1
            else:
                text = MadeUpText(domain, self.random.random(), self.random.random())
                pods[index % len(pods)].finish(text, self, self.now)
                self.finished += 1
                self.domains = [*self.domains, domain][-200:]
            self.now += timedelta(seconds=each)
            if index % 4 == 3:
                self.step(0.1)
        self.step(0.1)

    def edit(self, **changes: object) -> None:
        """The user changes the spec."""
        self.spec = replace(self.spec, **changes)  # type: ignore[arg-type]
        self.deployment = replace(self.deployment, spec=self.spec, generation=self.deployment.generation + 1)

    def annotate(self, name: str, value: str) -> None:
        self.deployment = replace(self.deployment, annotations={**self.deployment.annotations, name: value})

    @property
    def status(self) -> DeploymentStatus:
        return self.deployment.status

    @property
    def active(self) -> tuple[str, int] | None:
        active = self.status.active
        return (active.candidate, active.layer_budget) if active else None

    @property
    def kinds(self) -> list[str]:
        """Of the changes that were made, in order."""
        return [entry.kind.value for entry in self.status.history if entry.result == "Promoted"]

    # -- observe ---------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return Snapshot(
            deployment=self.deployment,
            hardware=self.hardware,
            free_memory_mib=self.memory_mib - self._claimed_mib(),
            performance_version=self.performance_version,
            models=self.models,
            timings=tuple(row for row in self.rows.values() if isinstance(row, TimingRow)),
            qualities=tuple(row for row in self.rows.values() if isinstance(row, QualityRow)),
            task_rows=tuple(row for row in self.rows.values() if isinstance(row, TasksRow)),
            tasks=self.task_set,
            jobs=tuple(job for job, _ in self.jobs.values()),
            revisions=tuple(self._seen(revision) for revision in self.revisions.values()),
            prompts=self.given_prompts(),
            accelerators_free=self.accelerators_free if self.cards is None else self.cards - self.cards_taken,
        )

    def given_prompts(self) -> PromptSource | None:
        """In the spec; None: live ones."""
        inline = self.spec.profiling.prompts.inline
        return PromptSource("sha256:inline", len(inline)) if inline else None

    def given_texts(self) -> Sequence[Text]:
        """Of those: inline prompts are written "domain", once per prompt."""
        seeds = random.Random(7)
        domains = self.spec.profiling.prompts.inline
        return [MadeUpText(domain, seeds.random(), seeds.random()) for domain in domains]

    @property
    def cards_taken(self) -> int:
        running = [job.spec for job, _ in self.jobs.values() if job.phase is JobPhase.RUNNING]
        measuring = sum(spec.kind is not JobKind.INSPECT and not spec.on_cpu for spec in running)
        return measuring + sum(len(revision.pods) for revision in self.revisions.values())

    def _seen(self, revision: SimulatedRevision) -> Revision:
        return Revision(
            number=revision.number,
            limits=revision.limits,
            replicas=revision.replicas,
            created=revision.created,
            routed=revision.routed,
            draining=revision.draining,
            pods=tuple(self._look_at(pod) for pod in revision.pods),
            claims=self.claims,
            template_current=revision.template_current,
        )

    def _look_at(self, pod: SimulatedPod) -> Pod:
        return replace(pod.seen(), telemetry=None) if self.misses(pod) else pod.seen()

    def _claimed_mib(self) -> int:
        return sum(r.limits.memory_mib * len(r.pods) for r in self.revisions.values())

    # -- apply -----------------------------------------------------------------------------------------------

    def apply(self, plan: Plan, *, write_status: bool = True) -> None:
        for action in plan.actions:
            self._act(action)
        self.actions += plan.actions
        if write_status:
            self.deployment = replace(self.deployment, status=plan.status)
        written = {model.name: model for model in plan.models}
        self.models = tuple(written.get(model.name, model) for model in self.models)

    def _act(self, action: Action) -> None:
        match action:
            case plans.StartJob(job=job):
                self._start(job)
            case plans.DeleteJob(name=name):
                self.jobs.pop(name, None)
            case plans.WriteProfile(row=row):
                self.rows[row.name] = row
            case plans.DeleteProfile(name=name):
                self.rows.pop(name, None)
            case plans.CreateRevision(number=number, limits=limits, replicas=replicas):
                revision = SimulatedRevision(number, limits, replicas, self.now)
                self.revisions.setdefault(number, revision)
                self._size(self.revisions[number])
            case plans.ScaleRevision(number=number, replicas=replicas):
                self.revisions[number].replicas = replicas
                self._size(self.revisions[number])
            case plans.WriteLimits(revision=number, limits=limits):
                self.revisions[number].limits = limits
            case plans.Route(revision=number):
                for revision in self.revisions.values():
                    revision.routed = revision.number == number
            case plans.DrainRevision(number=number):
                self.revisions[number].draining = True
                for pod in self.revisions[number].pods:
                    pod.drain()
            case plans.DeleteRevision(number=number):
                self.revisions.pop(number, None)
            case _:
                assert_never(action)

    def _size(self, revision: SimulatedRevision) -> None:
        del revision.pods[revision.replicas :]
        while len(revision.pods) < revision.replicas:
            name = f"chat-{revision.number}-{len(revision.pods)}"
            revision.pods.append(self.pod(name, revision.number, self.now, revision.limits, self))

    def _start(self, spec: JobSpec) -> None:
        before = self.jobs.get(spec.name)
        if not self.starts_jobs(spec):
            return
        if before and before[0].phase is not JobPhase.FAILED:
            return
        attempts = before[0].attempts + 1 if before else 1
        ends = self.now + timedelta(seconds=self.job_seconds)
        self.jobs[spec.name] = (Job(spec, JobPhase.RUNNING, self.now, attempts=attempts), ends)

    # -- time ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        for name, (job, ends) in list(self.jobs.items()):
            if job.phase is JobPhase.RUNNING and (message := self.stuck(job.spec)):
                self.jobs[name] = (
                    replace(job, message=message),
                    self.now + timedelta(seconds=self.job_seconds),
                )
            elif job.phase is JobPhase.RUNNING and self.now >= ends:
                self.jobs[name] = (self._finished(replace(job, message="")), ends)
        for revision in self.revisions.values():
            for pod in revision.pods:
                pod.advance(revision.limits)
            revision.pods = [pod for pod in revision.pods if pod.running or not pod.draining]

    def _finished(self, job: Job) -> Job:
        if message := self.fails(job.spec):
            return replace(job, phase=JobPhase.FAILED, finished=self.now, message=message)
        why = {p: self.unheld(job.spec.kind, p) for p in job.spec.precisions}
        why |= {o.precision: self.unheld(job.spec.kind, o.precision) for o in job.spec.options}
        left_out = {p: words for p, words in why.items() if words}
        done = replace(job, phase=JobPhase.SUCCEEDED, finished=self.now, left_out=left_out)
        models = {c.name: self.model(c) for c in job.spec.candidates}
        match job.spec.kind:
            case JobKind.INSPECT:
                resolved = {name: m.resolved() for name, m in models.items() if not m.problem}
                problems = {name: m.problem for name, m in models.items() if m.problem}
                return replace(done, resolved=resolved, problems=problems)
            case JobKind.TIMING:
                return replace(done, timings=tuple(measurements.timings(self, job.spec)))
            case JobKind.QUALITY:
                return replace(done, quality=tuple(measurements.quality_rows(self, job.spec)))
            case JobKind.TASKS:
                return replace(done, tasks=tuple(measurements.task_rows(self, job.spec)))

    def model_of(self, limits: Limits) -> Model:
        wanted = (limits.model_uri, limits.exits_uri)
        return next(model for (uri, _, exits, _), model in self.truth.items() if (uri, exits) == wanted)

    def model(self, candidate: Candidate) -> Model:
        return self.truth[key(candidate)]

    def resolved(self, candidate: Candidate) -> Resolved:
        return self.model(candidate).resolved()
