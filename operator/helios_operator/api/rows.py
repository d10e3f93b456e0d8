"""The Performance History Table, typed: one row per HeliosProfile, a measurement of Timing, Quality or Tasks.

Built by `api.parse.profile_row` from an object and by `api.results` from what a Job returned; read by every
module of `decide`. Rows hold what was measured and under which identity; they must not judge it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from helios_contract.results import ExitQuality, Texts, Timing
from helios_contract.serves import AUTO, InPrecision


@dataclass(frozen=True)
class Hardware:
    """Where pods run."""

    accelerator: str | None
    accelerators: int
    memory_mib: int
    """The machine's or the accelerators'; 0 where nothing tells how much these have."""
    cpu: str
    cores: int
    dtype: str
    """Its default there."""


class RowPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True)
class TimingIdentity(InPrecision):
    model_uri: str
    revision: str
    dtype: str
    head_kinds: tuple[str, ...]
    hardware: Hardware
    performance_version: int
    """Of the engine: timings taken under another one are measured again."""
    max_context_tokens: int = 0
    """What pods serve at most; 0: what the model is made for. Temporaries of a step grow with it."""
    weight_dtype: str = AUTO
    """How weights are held."""
    kv_cache_dtype: str = AUTO
    """How keys and values are held."""


@dataclass(frozen=True)
class TimingRow(Timing):
    """What a Timing Job measured, or is to measure."""

    name: str
    identity: TimingIdentity
    phase: RowPhase
    message: str = ""
    completed: datetime | None = None

    @property
    def measured(self) -> Timing:
        """The measurement alone."""
        return Timing(**{each.name: getattr(self, each.name) for each in fields(Timing)})


@dataclass(frozen=True)
class QualityIdentity(InPrecision):
    model_uri: str
    revision: str
    exits_digest: str
    prompts_digest: str
    weight_dtype: str = AUTO
    """How weights are held."""
    kv_cache_dtype: str = AUTO
    """How keys and values are held."""


@dataclass(frozen=True)
class QualityRow(Texts):
    """What a Quality Job measured of one candidate, or is to measure."""

    name: str
    identity: QualityIdentity
    phase: RowPhase
    message: str = ""
    completed: datetime | None = None
    exits: tuple[ExitQuality, ...] = ()
    """Every exit of the bundle and, last, full depth."""

    @property
    def texts(self) -> Texts:
        """What was scored."""
        return Texts(**{each.name: getattr(self, each.name) for each in fields(Texts)})


@dataclass(frozen=True)
class TasksIdentity(InPrecision):
    model_uri: str
    revision: str
    exits_digest: str
    """ "" at full depth, where heads do not matter."""
    layer_budget: int
    """Layers."""
    tasks_digest: str
    weight_dtype: str = AUTO
    """How weights are held."""
    kv_cache_dtype: str = AUTO
    """How keys and values are held."""


@dataclass(frozen=True)
class TasksRow:
    """Which of some tasks one option passes, or is to be asked."""

    name: str
    identity: TasksIdentity
    phase: RowPhase
    message: str = ""
    completed: datetime | None = None
    tasks: int = 0
    """How many were asked."""
    passes: str = ""
    """Bits, as `helios_contract.tasks` writes them."""


Row = TimingRow | QualityRow | TasksRow
"""Whatever was measured."""
