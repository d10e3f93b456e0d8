"""The Performance History Table, typed: one row per HeliosProfile, a Timing or a Quality measurement.

Built by `api.parse.profile_row` from an object and by `api.results` from what a Job returned; read by every
module of `decide`. Rows hold what was measured and under which identity; they must not judge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from helios_server.planning.memory import MemoryFacts
from helios_server.planning.timing import StepTimeFit


@dataclass(frozen=True)
class Hardware:
    """Where pods run. `memory_mib`: the machine's or the accelerator's; `dtype`: its default there."""

    accelerator: str | None
    accelerators: int
    memory_mib: int
    cpu: str
    cores: int
    dtype: str


class RowPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True)
class TimingIdentity:
    model_uri: str
    revision: str
    dtype: str
    head_kinds: tuple[str, ...]
    hardware: Hardware
    performance_version: int


@dataclass(frozen=True)
class EnergyCost:
    """Source: nvml | rapl | declared. Joules per million generated tokens at (layers, rows) points."""

    source: str
    joules_per_megatoken: Mapping[tuple[int, int], int]
    """(layer budget, rows) -> J per 10^6 tokens."""
    idle_milliwatts: int = 0


@dataclass(frozen=True)
class TimingPoint:
    """One measured shape of a step: new tokens `rows`, context `kv_tokens` summed over them, `sampled` rows
    through the LM head; median and 95th percentile of its duration in microseconds."""

    layer_budget: int
    rows: int
    kv_tokens: int
    sampled: int
    head_kind: str
    step_p50_us: int
    step_p95_us: int


@dataclass(frozen=True)
class TimingRow:
    name: str
    identity: TimingIdentity
    phase: RowPhase
    message: str = ""
    completed: datetime | None = None
    fit: StepTimeFit | None = None
    memory: MemoryFacts | None = None
    exit_bytes: Mapping[str, int] = field(default_factory=dict)
    """Resident bytes of one bundle by head kind."""
    audit_bytes: int = 0
    energy: EnergyCost | None = None
    points: tuple[TimingPoint, ...] = ()
    """What the fit was made from: for people, decisions read the fit."""


@dataclass(frozen=True)
class QualityIdentity:
    model_uri: str
    revision: str
    exits_digest: str
    prompts_digest: str


@dataclass(frozen=True)
class ExitQuality:
    """At one depth over the row's prompts. `prompt_millibits`: total bits x 1000 per prompt, in prompt order
    (empty when the row keeps totals only)."""

    layer: int
    millibits: int
    agreement_percent: int
    first_agrees_percent: int
    ece_milli: int
    mean_confidence_milli: int = 0
    prompt_millibits: tuple[int, ...] = ()


@dataclass(frozen=True)
class QualityRow:
    """`exits` holds every exit of the bundle and, last, full depth. `prompt_bytes` in prompt order."""

    name: str
    identity: QualityIdentity
    phase: RowPhase
    message: str = ""
    completed: datetime | None = None
    prompts: int = 0
    tokens: int = 0
    bytes: int = 0
    prompt_bytes: tuple[int, ...] = ()
    exits: tuple[ExitQuality, ...] = ()
