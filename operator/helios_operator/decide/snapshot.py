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

from helios_server.planning.timing import StepPoint

from helios_operator.api.rows import (
    EnergyCost,
    ExitQuality,
    Hardware,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TimingIdentity,
    TimingPoint,
    TimingRow,
)
from helios_operator.api.types import Candidate, Deployment, Model, Resolved

__all__ = [
    "EnergyCost",
    "ExitQuality",
    "Hardware",
    "QualityIdentity",
    "QualityRow",
    "RowPhase",
    "TimingIdentity",
    "TimingPoint",
    "TimingRow",
]
"""Re-exported: the rows are API objects and stand in `api.rows`."""


@dataclass(frozen=True)
class BundleRef:
    """An exit-head bundle of the served backbone. `uri` and `digest` are "" for the model's own head."""

    candidate: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Baseline:
    """Mean and between-request standard deviation of a per-request quantity."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class ServingLimits:
    """The limits document of a revision: what its pods serve. The same fields as helios.v1.Limits, all
    resolved: `layer_budget` in layers is explicit, never 0. `max_batch_size` in rows is 0 ("what fits") only
    while the reference candidate serves before its memory was measured."""

    generation: int
    candidate: str
    model_uri: str
    model_revision: str
    exits_uri: str
    exits_digest: str
    layer_budget: int
    max_batch_size: int
    memory_mib: int
    max_queue_size: int
    exit_layers: tuple[int, ...]
    audit_percent: int
    bundles: tuple[BundleRef, ...]
    tokens_per_request: int
    quality_baseline: Baseline | None = None
    confidence_baseline: Baseline | None = None
    live_prompts: int = 0
    breach_threshold: float = 0.0


# -- jobs ----------------------------------------------------------------------------------------------------


class JobKind(StrEnum):
    INSPECT = "Inspect"
    TIMING = "Timing"
    QUALITY = "Quality"


class JobPhase(StrEnum):
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class JobSpec:
    """One profiling Job: all that `helios profile` is told. `candidates` share a backbone (or, for Inspect,
    need not); `prompts_digest` names the live set to fetch, or the digest of the given prompts."""

    name: str
    kind: JobKind
    candidates: tuple[Candidate, ...]
    head_kinds: tuple[str, ...] = ()
    prompts_digest: str = ""
    rows: tuple[str, ...] = ()
    """Names of the HeliosProfile rows that it fills."""
    on_cpu: bool = False
    """Though the pods ask for an accelerator. Inspect Jobs never take one."""


@dataclass(frozen=True)
class Job:
    """As observed. `timing`, `quality` and `resolved` (by candidate name) hold what a succeeded Job returned.
    `attempts` counts the runs so far; a StartJob of a failed Job's name is its next attempt."""

    spec: JobSpec
    phase: JobPhase
    started: datetime
    finished: datetime | None = None
    attempts: int = 1
    message: str = ""
    timing: TimingRow | None = None
    quality: tuple[QualityRow, ...] = ()
    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """What Inspect found wrong with a candidate, by name: one bad candidate does not spoil the others."""


# -- pods and their telemetry --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Histogram:
    """`counts` has one entry more than `upper_bounds`; the last bucket is open."""

    upper_bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sum: float = 0.0


@dataclass(frozen=True)
class AuditRow:
    """One request whose prompt was scored. `exits`: (bundle digest, layer) -> (total millibits, agreeing
    tokens)."""

    request: int
    tokens: int
    bytes: int
    full_millibits: int
    exits: Mapping[tuple[str, int], tuple[int, int]]


@dataclass(frozen=True)
class Alarm:
    """Kind: Audit | Confidence | Breach; direction: Down | Up. Requests are ordinals since the pod's boot."""

    kind: str
    direction: str
    at_request: int
    since_request: int
    statistic: float
    time: datetime


@dataclass(frozen=True)
class PromptSet:
    """The newest frozen set of live prompts in a pod, by request ordinals."""

    digest: str
    prompts: int
    from_request: int
    to_request: int


@dataclass(frozen=True)
class Telemetry:
    boot_id: str
    limits: ServingLimits
    kv_capacity_tokens: int
    max_batch_size: int
    draining: bool
    running: int
    waiting: int
    requests_finished: int
    requests_failed: int
    requests_since_change: int
    batch_reached: int
    tokens_per_second: float
    ttft_ms: Histogram = Histogram()
    itl_ms: Histogram = Histogram()
    e2e_ms: Histogram = Histogram()
    audits: tuple[AuditRow, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    breaches_in_window: int = 0
    breach_window: int = 0
    prompts: PromptSet | None = None
    steps: tuple[StepPoint, ...] = ()
    refused_generation: int = 0
    refused_message: str = ""
    process_start_bytes: int = 0
    """What the process holds beside the model; 0: not told."""


class PodPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@dataclass(frozen=True)
class Pod:
    name: str
    revision: int
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
    """One Deployment of pods with its limits document. `routed`: the front address sends new connections
    there."""

    number: int
    limits: ServingLimits
    replicas: int
    created: datetime
    routed: bool
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
    """Prompts given in the spec (inline or a ConfigMap), already read. None for live prompts."""

    digest: str
    prompts: int


@dataclass(frozen=True)
class Snapshot:
    deployment: Deployment
    hardware: Hardware
    free_memory_mib: int
    """What no pod has claimed on the machine (or accelerator): a second pod fits when its limit does."""
    performance_version: int
    models: tuple[Model, ...] = ()
    timings: tuple[TimingRow, ...] = ()
    qualities: tuple[QualityRow, ...] = ()
    jobs: tuple[Job, ...] = ()
    revisions: tuple[Revision, ...] = ()
    prompts: PromptSource | None = None
    accelerators_free: int | None = None
    """Of the extended resource that the pod asks for; None when it asks for none."""
