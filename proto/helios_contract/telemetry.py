"""What a pod says of itself: one immutable picture, made by the engine and read by the decisions.

Counts are since boot, unless a field says that it is a window. Nothing here may sum, average or judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from helios_contract.limits import Limits
from helios_contract.serves import AUTO

AS_PUBLISHED, OWN = AUTO, "own"
"""Precisions of the full depth that audits compare with: as published, or the one that serves."""


@dataclass(frozen=True)
class Capacity:
    """What the limits came to on this machine. 0: not known yet."""

    layers_loaded: int = 0
    total_layers: int = 0
    """Of the whole model."""
    max_batch_size: int = 0
    """Rows."""
    kv_capacity_tokens: int = 0
    weight_bytes: int = 0
    """Backbone and heads."""
    kv_bytes: int = 0
    """The whole pool."""
    process_start_bytes: int = 0
    """Held beside what is counted here."""
    activation_peak_bytes: int = 0
    """Temporaries of a step."""


@dataclass(frozen=True)
class Histogram:
    upper_bounds: tuple[float, ...] = ()
    """Ascending; the holder's name says their unit."""
    counts: tuple[int, ...] = ()
    """Per bucket, one more than bounds: the last one is open."""
    sum: float = 0.0
    """Of the values, in the bounds' unit."""


@dataclass(frozen=True)
class StepTiming:
    """Steps of about one shape."""

    layers: int
    rows: int
    """New tokens in the step."""
    sampled: int
    """Rows through the LM head."""
    kv_tokens: int
    """Context summed over the rows, mean."""
    count: int
    """Steps."""
    mean_us: float


@dataclass(frozen=True)
class AuditRow:
    """One request whose prompt was scored."""

    request: int
    """Ordinal since boot."""
    tokens: int
    """Scored."""
    bytes: int
    """Of the text scored, in UTF-8."""
    full_millibits: int
    """Total at the backbone's full depth."""
    exits: Mapping[tuple[str, int], tuple[int, int]]
    """(bundle digest, layer) -> (total millibits, tokens whose most likely one is full depth's)."""
    reference: str = field(default=AS_PUBLISHED, metadata={"since": 1})
    """What full depth is here: auto, the model as published | own, the precision that serves."""

    def own_full(self, depth: int) -> int:
        """Total millibits of the whole model in the precision that serves; `depth` is its number of layers.
        It stands among the exits where the row compares with another precision."""
        scored = (millibits for (_, layer), (millibits, _) in self.exits.items() if layer == depth)
        return next(scored, self.full_millibits)


@dataclass(frozen=True)
class Alarm:
    """A lasting change that a detector called."""

    kind: str
    """Audit | Confidence | Breach | Tasks, or a word that is newer."""
    direction: str
    """Down | Up."""
    at_request: int
    """Ordinal since boot."""
    since_request: int
    """Ordinal of the estimated change point."""
    statistic: float
    """What crossed the threshold, in standard deviations; for Breach, breaches; for Tasks, a logarithm of
    likelihoods."""
    unix_seconds: float
    """By the pod's clock."""

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.unix_seconds, UTC)


MOST_ALARMS = 16


def kept(alarms: tuple[Alarm, ...]) -> tuple[Alarm, ...]:
    """The newest of them (newest last), and the first call of each kind's present direction, however long
    ago: a shift that lasts is called again and again, and what came since is counted from its beginning."""
    begun: dict[str, Alarm] = {}
    for alarm in alarms:
        if alarm.kind not in begun or begun[alarm.kind].direction != alarm.direction:
            begun[alarm.kind] = alarm
    others = [alarm for alarm in alarms if alarm not in begun.values()]
    gone = others[: max(0, len(alarms) - MOST_ALARMS)]
    return tuple(alarm for alarm in alarms if alarm not in gone)


@dataclass(frozen=True)
class BreachCounter:
    """The paper's counter."""

    threshold: float = 0.0
    """Confidence in [0, 1]."""
    in_window: int = 0
    """Breaches in the last `window` tokens."""
    window: int = 0
    """Tokens."""
    total: int = 0
    """Since boot."""


@dataclass(frozen=True)
class PromptSet:
    """The newest frozen set of live prompts."""

    digest: str
    prompts: int
    """How many."""
    from_request: int
    """Ordinal of its oldest prompt."""
    to_request: int
    """Ordinal of its newest prompt."""


@dataclass(frozen=True)
class Energy:
    source: str
    """nvml | rapl | declared, or a word that is newer."""
    joules: float
    """Since boot."""


@dataclass(frozen=True)
class TaskCounts:
    """Of the tasks that what serves passes by its profile, asked since it serves."""

    asked: int = 0
    """Answers that were judged."""
    passed: int = 0
    """Of them."""


@dataclass(frozen=True)
class Refusal:
    """Limits that could not be applied."""

    generation: int
    """Of the limits refused."""
    message: str
    """Why."""


@dataclass(frozen=True)
class Telemetry:
    """Of one pod at one moment."""

    boot_id: str
    """Changes when the process restarts."""
    limits: Limits
    """Those that hold."""
    uptime_seconds: float = 0.0
    capacity: Capacity = Capacity()
    ready: bool = False
    draining: bool = False
    running: int = 0
    """Requests that hold a row."""
    waiting: int = 0
    """Requests that hold none, or not again."""
    requests_finished: int = 0
    requests_failed: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    """Times that a request went back to waiting, for others to have its pages."""
    batch_reached: int = 0
    """Window, since the last change of limits: most rows in one step."""
    requests_since_change: int = 0
    ttft_ms: Histogram = Histogram()
    """Window, since the last change of limits, as are the next three."""
    itl_ms: Histogram = Histogram()
    e2e_ms: Histogram = Histogram()
    confidence_percent: Histogram = Histogram()
    audits: tuple[AuditRow, ...] = ()
    """Window: the newest 128."""
    alarms: tuple[Alarm, ...] = ()
    """Since boot or the last change of limits, newest last, at most 16; the first call of a shift that lasts
    is among them."""
    breaches: BreachCounter = BreachCounter()
    prompts: PromptSet | None = None
    """None: no set is frozen yet."""
    steps: tuple[StepTiming, ...] = ()
    """Window, since the last change of limits."""
    energy: Energy | None = None
    """None: nothing measures it."""
    generation_tokens_per_second: float = 0.0
    """Over the last 10 seconds with work."""
    refused: Refusal | None = None
    """The newest, if newer than `limits`."""
    contract_version: int = field(default=0, metadata={"since": 1})
    """Of the pod's release."""
    tasks: TaskCounts | None = field(default=None, metadata={"since": 1})
    """None: none were asked."""
    seconds_since_step: float = field(default=0.0, metadata={"since": 1})
    """Age of the engine's last sign of life; 0: it has nothing to do, or does not tell."""

    @property
    def known_generation(self) -> int:
        """Of the newest limits that the pod has, or has refused."""
        return max(self.limits.generation, self.refused.generation if self.refused else 0)
