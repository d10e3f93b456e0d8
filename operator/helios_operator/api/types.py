"""Typed, read-only view of HeliosDeployment. Built by `api.parse` from admitted dicts.

Field names are the CRDs' in snake_case; quantities are integers with the unit in the name; durations are
timedeltas. Everything that decides reads these types and never a dict. They must not validate: the schema and
the CEL rules did. (The status is `api.status`; the other kinds are `api.models` and `api.rows`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from helios_operator.api.annotations import PAUSED, is_paused
from helios_operator.api.status import (
    CandidateStatus,
    Condition,
    Decision,
    DeploymentStatus,
    HistoryEntry,
    JobStatus,
    PodTally,
    ReassessmentStatus,
    RolloutStatus,
    Served,
)

__all__ = [
    "CandidateStatus",
    "Condition",
    "Decision",
    "DeploymentStatus",
    "HistoryEntry",
    "JobStatus",
    "PodTally",
    "ReassessmentStatus",
    "RolloutStatus",
    "Served",
]
"""Re-exported: what is remembered stands in `api.status`."""


class SelectionPolicy(StrEnum):
    AUTO = "Auto"
    PINNED = "Pinned"
    ADVISORY = "Advisory"


class Objective(StrEnum):
    THROUGHPUT = "throughput"
    LATENCY = "latency"
    ENERGY = "energy"
    QUALITY = "quality"


class Trigger(StrEnum):
    AUDIT = "Audit"
    CONFIDENCE = "Confidence"


class Strategy(StrEnum):
    AUTO = "Auto"
    SURGE = "Surge"
    RECREATE = "Recreate"
    IN_PLACE = "InPlace"


@dataclass(frozen=True)
class Bounds:
    """Inclusive, in layers."""

    min: int | None = None
    """None: open."""
    max: int | None = None
    """None: open."""


@dataclass(frozen=True)
class Candidate:
    """A model to choose from."""

    name: str
    uri: str
    """Of the checkpoint: file://, pvc:// or hf://."""
    revision: str | None = None
    """A branch, tag or commit of an hf:// uri; None: its default."""
    exit_layers: tuple[int, ...] = ()
    """Depths in layers after which it may stop."""
    exits: str | None = None
    """Its exit-head bundle. None: the model's own head."""
    layer_budget: Bounds | None = None
    trust_remote_code: bool = False
    weight_dtypes: tuple[str, ...] = ()
    """How weights may be held; empty: the operator's default."""
    kv_cache_dtypes: tuple[str, ...] = ()
    """How keys and values may be held; empty: the operator's default."""


@dataclass(frozen=True)
class CandidateSelector:
    match_labels: dict[str, str]
    max_candidates: int = 3
    """Of the catalogue, how many are profiled."""


@dataclass(frozen=True)
class Selection:
    policy: SelectionPolicy = SelectionPolicy.AUTO
    candidate: str | None = None


@dataclass(frozen=True)
class Slo:
    ttft_ms: int | None = None
    itl_ms: int | None = None
    e2e_latency_ms: int | None = None
    percentile: int = 95
    """Of requests (ttft, e2e) or tokens (itl) that must meet the latencies."""
    min_quality_percent: int | None = None
    min_agreement_percent: int | None = None
    min_task_percent: int | None = None
    optimization_type: Objective = Objective.THROUGHPUT


@dataclass(frozen=True)
class WorkloadSpec:
    """The traffic to plan for."""

    isl: int = 512
    """Input length in tokens."""
    osl: int = 128
    """Output length in tokens."""
    concurrency: int | None = None
    """Requests at a time. At most one of this and `request_rate` is set."""
    request_rate: int | None = None
    """Requests per second."""


@dataclass(frozen=True)
class LimitsSpec:
    layer_budget: Bounds = Bounds()
    memory_mib: int | None = None
    """Of one serving process. None: the pod's memory limit, or the accelerator's share."""
    max_batch_size: int | None = None
    """Rows. None: what fits."""
    max_queue_size: int = 64
    """Requests that wait."""
    max_context_tokens: int | None = None
    """Of prompt and output; None: the model's."""


@dataclass(frozen=True)
class LivePrompts:
    max_prompts: int
    consent: bool


@dataclass(frozen=True)
class ConfigMapRef:
    name: str
    key: str


@dataclass(frozen=True)
class Prompts:
    """At most one of `config_map_ref` and `inline` is set: beside `live`, for the first choice only. With no
    source quality cannot be measured."""

    live: LivePrompts | None = None
    config_map_ref: ConfigMapRef | None = None
    inline: tuple[str, ...] = ()

    @property
    def takes_live(self) -> bool:
        return bool(self.live and self.live.consent)


@dataclass(frozen=True)
class TaskSource:
    """Exactly one of the two is set."""

    inline: tuple[dict[str, Any], ...] = ()
    """As the schema admits them: `helios_contract.tasks.from_document` reads them."""
    config_map_ref: ConfigMapRef | None = None


@dataclass(frozen=True)
class Profiling:
    search_strategy: str = "rapid"
    max_parallelism: int = 1
    """Jobs at a time."""
    backoff_limit: int = 1
    """Times that a failed Job is tried again."""
    active_deadline_seconds: int = 1800
    ttl_seconds_after_finished: int = 3600
    history_limit: int = 10
    """HeliosProfile rows that are kept per candidate."""
    prompts: Prompts = Prompts()
    tasks: TaskSource | None = None
    template: dict[str, Any] = field(default_factory=dict)
    """Partial PodTemplateSpec, merged into the Jobs of a cluster."""


@dataclass(frozen=True)
class MaintenanceWindow:
    schedule: str
    """When it opens: cron's five fields, in UTC."""
    duration: timedelta


@dataclass(frozen=True)
class TaskProbe:
    """Of the pods that serve."""

    every: timedelta
    count: int = 8
    """Tasks each time."""


@dataclass(frozen=True)
class Reassessment:
    trigger: Trigger = Trigger.AUDIT
    audit_percent: int = 5
    """Share of requests whose prompt is scored."""
    interval: timedelta = timedelta(hours=6)
    """A reassessment at least this often."""
    every_requests: int = 150
    """A reassessment at least every so many, summed over the replicas."""
    min_improvement_percent: int = 10
    """What a change has to gain."""
    consecutive_success_limit: int = 2
    """Reassessments in a row that a winner has to win."""
    cooldown: timedelta = timedelta(hours=1)
    """No optimisation sooner after a change; a repair does not wait for it."""
    maintenance_window: MaintenanceWindow | None = None
    task_probe: TaskProbe | None = None
    """None: what serves is not asked."""
    suspend: bool = False
    confidence_threshold_percent: int | None = None
    """Of the paper's breach counter (trigger Confidence); None: the bundle's calibrated threshold."""


@dataclass(frozen=True)
class Drain:
    pre_stop_seconds: int = 15
    """Between readiness off and GOAWAY."""
    timeout_seconds: int = 300
    """How long running streams may take to end."""


@dataclass(frozen=True)
class Analysis:
    """How a change is watched before it is kept."""

    interval: timedelta = timedelta(seconds=30)
    """Between two looks."""
    count: int = 10
    """Looks at the pods' metrics."""
    failure_limit: int = 2
    """Bad looks that are borne."""
    auto_rollback: bool = True


@dataclass(frozen=True)
class Rollout:
    strategy: Strategy = Strategy.AUTO
    progress_deadline_seconds: int = 900
    scale_down_delay_seconds: int = 120
    revision_history_limit: int = 0
    """Old revisions that are kept, without pods."""
    paused: bool = False
    drain: Drain = Drain()
    analysis: Analysis | None = None
    """None: a change is kept without being watched."""


@dataclass(frozen=True)
class ModelCache:
    """A PersistentVolumeClaim with checkpoints, mounted in the pods of a cluster."""

    pvc_name: str
    mount_path: str = "/models"
    read_only: bool = True


@dataclass(frozen=True)
class SecretKeyRef:
    name: str
    key: str


@dataclass(frozen=True)
class Tls:
    """Names of Secrets."""

    secret_name: str
    client_ca_secret_name: str = field(default="", metadata={"wire": "clientCASecretName"})
    """Empty: clients need no certificate."""


@dataclass(frozen=True)
class Auth:
    """secret_name: of a Secret whose keys are the names of callers, and whose values their tokens."""

    secret_name: str


_HTTP_PORT = 8000


@dataclass(frozen=True)
class ServiceSpec:
    port: int = 8033
    """TCP, of the Service and of the front address."""
    http_port: int | None = None
    """The same for OpenAI's API. 0: none. None: 8000, where that is not `port`."""
    tls: Tls | None = None
    auth: Auth | None = None
    """None: everybody may call."""


@dataclass(frozen=True)
class DeploymentSpec:
    """What the user asks for."""

    model_name: str
    """What clients send; the object's name when the spec has none."""
    candidates: tuple[Candidate, ...] = ()
    candidate_selector: CandidateSelector | None = None
    selection: Selection = Selection()
    slo: Slo = Slo()
    workload: WorkloadSpec = WorkloadSpec()
    limits: LimitsSpec = LimitsSpec()
    profiling: Profiling = Profiling()
    reassessment: Reassessment = Reassessment()
    rollout: Rollout = Rollout()
    replicas: int = 1
    service: ServiceSpec = ServiceSpec()
    model_cache: ModelCache | None = None
    auth_secret: SecretKeyRef | None = None
    template: dict[str, Any] = field(default_factory=dict)
    """PodTemplateSpec of the serving pods of a cluster."""

    @property
    def port(self) -> int:
        """Of the Service, and of the front address on one machine."""
        return self.service.port

    @property
    def http_port(self) -> int | None:
        """The same for OpenAI's API; None: there is no such port."""
        given = self.service.http_port
        if given is None:
            return _HTTP_PORT if self.port != _HTTP_PORT else None
        return given or None

    @property
    def serves_http(self) -> bool:
        """Whether pods do, whatever leads to them."""
        return self.service.http_port != 0


@dataclass(frozen=True)
class Deployment:
    name: str
    namespace: str
    uid: str
    generation: int
    """The API server raises it with every change of the spec."""
    spec: DeploymentSpec
    status: DeploymentStatus = field(default=DeploymentStatus())
    annotations: dict[str, str] = field(default_factory=dict)
    """By hand: `helios.dev/reassess`, `helios.dev/switch-to`, `helios.dev/paused` (see api.annotations)."""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def paused_by(self) -> str:
        """What holds every change; "" where nothing does."""
        if self.spec.rollout.paused:
            return "rollout.paused is true"
        return f"the annotation {PAUSED} is set" if is_paused(self.annotations) else ""


@dataclass(frozen=True)
class Owner:
    """A HeliosDeployment that uses a row of the history table."""

    name: str
    uid: str
