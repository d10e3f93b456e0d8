"""What a pass sees: one immutable picture of a HeliosDeployment and everything that belongs to it.

Built by `observe` (of a cluster, or of one machine), read by every module of `decide`. It holds facts only:
nothing here was computed by an earlier decision, except what the API itself remembers (status, the limits
document).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from helios_contract.limits import Limits
from helios_contract.results import Resolved
from helios_contract.serves import Precision
from helios_contract.telemetry import Telemetry

from helios_operator.api.models import Model
from helios_operator.api.rows import (
    Hardware,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TasksRow,
    TimingIdentity,
    TimingRow,
)
from helios_operator.api.types import Candidate, Deployment

__all__ = [
    "Hardware",
    "QualityIdentity",
    "QualityRow",
    "RowPhase",
    "TasksRow",
    "TimingIdentity",
    "TimingRow",
]
"""Re-exported: the rows are API objects and stand in `api.rows`."""


# -- jobs ----------------------------------------------------------------------------------------------------


class JobKind(StrEnum):
    INSPECT = "Inspect"
    TIMING = "Timing"
    QUALITY = "Quality"
    TASKS = "Tasks"


class JobPhase(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class AskedOption:
    """What a Tasks Job asks."""

    candidate: str
    """Its name."""
    layer_budget: int
    """Layers."""
    precision: Precision

    def __str__(self) -> str:
        held = "" if self.precision == Precision() else f" in {self.precision}"
        return f"{self.candidate} at {self.layer_budget}{held}"


@dataclass(frozen=True)
class JobSpec:
    """One profiling Job: all that `helios profile` is told."""

    name: str
    kind: JobKind
    candidates: tuple[Candidate, ...]
    """They share a backbone; for Inspect, need not."""
    head_kinds: tuple[str, ...] = ()
    prompts_digest: str = ""
    """Of the live set to fetch, or of the given prompts."""
    rows: tuple[str, ...] = ()
    """Names of the HeliosProfile rows that it fills."""
    max_context_tokens: int = 0
    """Of a Timing Job: what pods serve at most; 0: what the model is made for."""
    precisions: tuple[Precision, ...] = (Precision(),)
    """That it measures. Of a Quality Job the reference is always one: others are compared with it."""
    tasks_digest: str = ""
    """Of the tasks that a Tasks Job asks."""
    options: tuple[AskedOption, ...] = ()
    """Whom it asks, in this order; their candidates need not share a backbone."""
    on_cpu: bool = False
    """Though the pods ask for an accelerator. Inspect Jobs never take one."""

    @property
    def held(self) -> str:
        """ " in auto/auto, int8/auto", or ": chat at 30, chat at 24", for sentences; "" where it measures the
        reference alone."""
        if self.options:
            return f": {', '.join(map(str, self.options))}"
        alone = self.precisions == (Precision(),)
        return "" if alone else f" in {', '.join(map(str, self.precisions))}"


@dataclass(frozen=True)
class Job:
    """As observed."""

    spec: JobSpec
    phase: JobPhase
    started: datetime
    finished: datetime | None = None
    attempts: int = 1
    """Runs so far; a StartJob of a failed Job's name is its next attempt."""
    message: str = ""
    timings: tuple[TimingRow, ...] = ()
    """What a succeeded Job returned, as what follows."""
    quality: tuple[QualityRow, ...] = ()
    tasks: tuple[TasksRow, ...] = ()
    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    """By candidate's name."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What Inspect found wrong with a candidate, by name: one bad candidate does not spoil the others."""
    left_out: Mapping[Precision, str] = field(default_factory=dict)
    """What it was asked for and could not measure, with the reason: neither does that spoil the others."""
    lingers: bool = False
    """It is done, and its pod is not: another container keeps it, and what it holds."""
    progress: str = ""
    """How far it is, in its own words; "" where nobody hears them."""


# -- pods and their telemetry --------------------------------------------------------------------------------


class PodPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@dataclass(frozen=True)
class Pod:
    name: str
    revision: int
    """Number of the revision it belongs to."""
    phase: PodPhase
    ready: bool
    started: datetime
    restarts: int = 0
    message: str = ""
    """Why it is not ready, in the words of the process or the scheduler."""
    telemetry: Telemetry | None = None
    """None: not reached in this pass."""


@dataclass(frozen=True)
class Revision:
    """One Deployment of pods with its limits document."""

    number: int
    """Newer revisions have higher ones."""
    limits: Limits
    """All resolved: `layer_budget` is explicit, never 0; `max_batch_size` is 0 ("what fits") only while the
    reference candidate serves before its memory was measured."""
    replicas: int
    created: datetime
    routed: bool
    """The front address sends new connections there."""
    draining: bool
    pods: tuple[Pod, ...] = ()
    claims: tuple[str, ...] | None = None
    """Volume claims that its pods mount: a pvc:// uri of another claim needs a new revision. None: all are
    reached."""
    template_current: bool = True
    """False when the spec now renders another pod template (image, resources): the user asked for new pods.
    """


@dataclass(frozen=True)
class PromptSource:
    """Prompts given in the spec (inline or a ConfigMap), already read."""

    digest: str
    prompts: int
    """How many."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks given in the spec (inline or a ConfigMap), already read."""

    digest: str = ""
    """ "": there are none, and `problem` says why."""
    tasks: int = 0
    """How many."""
    problem: str = ""


@dataclass(frozen=True)
class Snapshot:
    deployment: Deployment
    hardware: Hardware
    free_memory_mib: int
    """What no pod has claimed on the machine (or accelerator): a second pod fits when its limit does."""
    performance_version: int
    """Of the engine: timings taken under another one are measured again."""
    models: tuple[Model, ...] = ()
    timings: tuple[TimingRow, ...] = ()
    qualities: tuple[QualityRow, ...] = ()
    task_rows: tuple[TasksRow, ...] = ()
    jobs: tuple[Job, ...] = ()
    revisions: tuple[Revision, ...] = ()
    prompts: PromptSource | None = None
    """None: there are none but live ones."""
    tasks: TaskSet | None = None
    """None: the spec gives none."""
    accelerators_free: int | None = None
    """Of the extended resource that the pod asks for; None when it asks for none."""
