"""Typed view of the status of HeliosDeployment and HeliosModel: what `decide` remembers and people read.

Built by `api.parse`, written by `api.serialize`; whoever reads whole objects finds all of it in `api.types`.
It must not validate, and it knows nothing of a spec.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from helios_contract.results import Resolved
from helios_contract.serves import AUTO, Precision


class Decision(StrEnum):
    """What a reassessment came to; `Select` is the first choice of a deployment's life."""

    SELECT = "Select"
    KEEP = "Keep"
    GROW = "Grow"
    REQUANTIZE = "Requantize"
    SHRINK = "Shrink"
    SWAP_HEADS = "SwapHeads"
    SWITCH = "Switch"
    INCONCLUSIVE = "Inconclusive"
    BLOCKED = "Blocked"


@dataclass(frozen=True)
class Condition:
    """metav1.Condition."""

    type: str
    status: str
    """True | False | Unknown"""
    reason: str
    """One of api.reasons.Reason."""
    message: str
    last_transition_time: datetime
    observed_generation: int = 0
    """The object's generation that it speaks of."""


@dataclass(frozen=True)
class Served:
    """`status.active` and `status.target`: what serves, or will."""

    candidate: str
    revision: int
    """The HELIOS revision's number."""
    layer_budget: int
    """Layers."""
    max_batch_size: int
    """Rows."""
    exits_digest: str | None
    """Empty: the model's own head. None: an older operator wrote it."""
    timing: str | None = None
    """Name of the HeliosProfile row that its speed is known from."""
    quality: str | None = None
    """Name of the row that its quality is known from."""
    since: datetime | None = None
    weight_dtype: str | None = None
    """Of the weights. None: an older operator wrote it, which knew auto alone, or older CRDs did not keep
    it."""
    kv_cache_dtype: str | None = None
    """Of keys and values."""
    max_request_tokens: int | None = None
    """Of prompt and output, that one request may have; of what is coming, as predicted. None: not known."""
    quality_percent: int | None = None
    """By the profile, rounded down; None: not measured."""
    memory_mib: int | None = None
    """What a pod may spend."""

    @property
    def precision(self) -> Precision:
        return Precision(self.weight_dtype or AUTO, self.kv_cache_dtype or AUTO)

    def answers_as(self, other: Served) -> bool:
        """Callers cannot tell them apart, as far as both say. New heads may come under an old name."""
        same = (self.candidate, self.layer_budget) == (other.candidate, other.layer_budget)
        said = ((s.exits_digest, s.weight_dtype, s.kv_cache_dtype) for s in (self, other))
        return same and all(len({*pair} - {None}) < 2 for pair in zip(*said, strict=True))


@dataclass(frozen=True)
class CandidateStatus:
    """What is known of a candidate."""

    name: str
    state: str
    """Pending | Profiling | NoPrompts | Profiled | Infeasible | Failed | Rejected (by the shortlist)"""
    feasible: bool
    message: str = ""
    resolved: Resolved | None = None
    timing: str | None = None
    quality: str | None = None
    profiles: tuple[str, ...] = ()
    """Names of the rows of its other precisions."""
    layer_budget: int | None = None
    """Of its best option on this hardware, in layers; the next ones are of the same option."""
    max_batch_size: int | None = None
    """Rows."""
    tokens_per_second: int | None = None
    quality_percent: int | None = None
    weight_dtype: str | None = None
    """Of that option, as the next one; None: auto, or not known."""
    kv_cache_dtype: str | None = None
    identity: str = ""
    """Digest of the uri, revision and exits that `resolved` and `message` were found for; "" before the
    first look."""


@dataclass(frozen=True)
class PodTally:
    """What is remembered of one boot of a pod: its counts and ordinals compare with no other's."""

    name: str
    boot_id: str
    requests: int | None = None
    """Finished since boot when the last reassessment that counted ended, or when the boot was first seen
    after it; None while that is not known."""
    triggered_at_request: int | None = None
    """The same when the reassessment under way began; None when none is."""
    alarms: dict[str, datetime] = field(default_factory=dict)
    """Those that the pod still tells, as KIND/DIRECTION/AT/SINCE, and when each was first heard, by the clock
    of whoever writes this."""


@dataclass(frozen=True)
class JobStatus:
    """A profiling Job of which the result is still waited for."""

    name: str
    attempts: int
    """Starts under this name so far."""
    start_time: datetime


@dataclass(frozen=True)
class ReassessmentStatus:
    """The memory of decisions between passes: the last outcome; wins, cooldown and back-off of the next."""

    last_time: datetime | None = None
    decision: Decision | None = None
    """The last outcome; `reason`, `message` and `last_time` belong to it."""
    reason: str = ""
    message: str = ""
    consecutive_wins: int = 0
    """Reassessments in a row that `winner` has won."""
    winner: str | None = None
    cooldown_until: datetime | None = None
    backoff_until: datetime | None = None
    backoff_seconds: int = 0
    next_time: datetime | None = None
    requests: int = 0
    """Counted when the last one or a change ended, and of pods that end, as they do: for people. What is new
    is told by `pods`."""
    pods: tuple[PodTally, ...] = ()
    trigger: str | None = None
    """What started the reassessment under way (Alarm, Requests, Interval, Manual); None when none is."""
    triggered_at: datetime | None = None
    triggered_at_request: int = 0
    """As `requests`, when the one under way began."""
    prompts: str = ""
    """Digest of the live prompts that the reassessment under way measures on; "" when it needs no new
    measurement."""
    blind_since: datetime | None = None
    """Since when no pod that serves has told anything; None while one does."""
    shifted_at: datetime | None = None
    """When an alarm was last heard of other traffic: what was measured before it does not judge what came
    after.
    """


@dataclass(frozen=True)
class RolloutStatus:
    """The change under way, or the last one."""

    revision: int
    """Number of the one that comes up, or changes."""
    phase: str
    """RollingOut | Analysing | Draining | Completed | Failed | RolledBack"""
    strategy: str = ""
    message: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    looks: int = 0
    """Of the analysis so far."""
    bad_looks: int = 0
    """How many of those were bad."""


@dataclass(frozen=True)
class HistoryEntry:
    """One change that was made."""

    time: datetime
    kind: Decision
    to: Served
    from_: Served | None
    """None for the first."""
    reason: str
    message: str
    result: str
    """Promoted | RolledBack | Failed"""
    at_request: int = 0
    """Finished when it was made, over all pods that ever served."""
    seconds: int = 0
    """How long it took."""


@dataclass(frozen=True)
class DeploymentStatus:
    observed_generation: int = 0
    """Of the spec that this status answers."""
    phase: str = "Pending"
    conditions: tuple[Condition, ...] = ()
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    """Replicas of the newest revision."""
    selector: str = ""
    """Label selector of the pods, for autoscalers."""
    endpoint: str = ""
    active: Served | None = None
    target: Served | None = None
    candidates: tuple[CandidateStatus, ...] = ()
    jobs: tuple[JobStatus, ...] = ()
    """Those that were started and left no result yet: one that vanishes is started again with patience."""
    reassessment: ReassessmentStatus = ReassessmentStatus()
    rollout: RolloutStatus | None = None
    history: tuple[HistoryEntry, ...] = ()


@dataclass(frozen=True)
class ModelStatus:
    """What the operator found out about an entry of the catalogue."""

    observed_generation: int = 0
    """Of the spec that this status answers."""
    conditions: tuple[Condition, ...] = ()
    """Resolved."""
    corrected_by: str | None = None
    """The HeliosProfile that the published figures gave way to."""
