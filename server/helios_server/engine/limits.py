"""What the engine is told to serve, and what that came to on this machine.

`EngineConfig` is fixed for the life of the process; `EngineLimits` change while it serves (`changes.py`).
Built by the doors and by the profiler. Plain data: it checks only what can be known without the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from helios_server.errors import LimitsRefused

_STEP_TOKENS = {"cpu": 128, "accelerator": 1024}
"""New tokens in one step. A core's time grows with each token; on an accelerator a step of 128 takes hardly
longer than one of 1 (measured: docs/decisions/0098-steps-on-an-accelerator.md).
"""


@dataclass(frozen=True)
class EngineConfig:
    """How this process computes. device: a torch device; dtype: a name, None for the device's default.

    threads: CPU threads of torch, None for its own choice; step_tokens: new tokens in one step, 0 for the
    device's default; page_tokens: tokens in a page of the KV cache; max_context: tokens, None for the
    model's; volumes: folder that stands for mounted claims; offline: fetch nothing, None for what the
    environment says.
    """

    device: str = "cpu"
    dtype: str | None = None
    threads: int | None = None
    step_tokens: int = 0
    page_tokens: int = 16
    max_context: int | None = None
    volumes: Path | None = None
    offline: bool | None = None

    def __post_init__(self) -> None:
        default = _STEP_TOKENS["cpu" if self.device == "cpu" else "accelerator"]
        object.__setattr__(self, "step_tokens", self.step_tokens or default)


@dataclass(frozen=True)
class BundleSpec:
    """An exit-head bundle of the served backbone. uri and digest are "" for the model's own head."""

    candidate: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Baseline:
    """Mean and between-request standard deviation of a per-request quantity in [0, 1]."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True)
class AuditLimits:
    """percent: share of requests whose prompt is scored; bundles: scored side by side.

    quality: what the profile expects of full-depth bits / exit bits; confidence: of a request's mean
    confidence. None: learnt from the first requests.
    """

    percent: int = 0
    bundles: tuple[BundleSpec, ...] = ()
    quality: Baseline | None = None
    confidence: Baseline | None = None


@dataclass(frozen=True)
class EngineLimits:
    """The fields of helios.v1.Limits. generation: raised with every change; layer_budget: layers, 0 for full
    depth.

    max_batch_size: rows, 0 for what fits; memory_mib: of the whole process, 0 for the container's or the
    machine's; max_queue_size: waiting requests; exit_layers: legal depths beside full depth; live_prompts:
    prompts kept (by the server, not the engine); breach_threshold: confidence in [0, 1], 0 for the bundle's
    own; tokens_per_request: tokens of prompt and output, by which capacity is counted in rows. model_revision
    "": whatever the uri holds.
    """

    generation: int
    candidate: str
    model_uri: str
    model_revision: str = ""
    exits_uri: str = ""
    exits_digest: str = ""
    layer_budget: int = 0
    max_batch_size: int = 0
    memory_mib: int = 0
    max_queue_size: int = 64
    exit_layers: tuple[int, ...] = ()
    audit: AuditLimits = field(default_factory=AuditLimits)
    live_prompts: int = 0
    breach_threshold: float = 0.0
    tokens_per_request: int = 512

    def __post_init__(self) -> None:
        _check(
            "model_uri", bool(self.model_uri), "is empty", "Name the model, for example file:///models/chat"
        )
        _check(
            "tokens_per_request",
            self.tokens_per_request >= 1,
            f"is {self.tokens_per_request}",
            "Give 1 or more",
        )
        _check("audit.percent", 0 <= self.audit.percent <= 100, f"is {self.audit.percent}", "Give 0 to 100")
        _check("max_queue_size", self.max_queue_size >= 1, f"is {self.max_queue_size}", "Give 1 or more")
        within = 0 <= self.breach_threshold <= 1
        _check("breach_threshold", within, f"is {self.breach_threshold}", "Give a probability, 0 to 1")

    @property
    def served_bundle(self) -> BundleSpec:
        """The bundle that serves."""
        return BundleSpec(self.candidate, self.exits_uri, self.exits_digest)

    def budget(self, num_layers: int) -> int:
        """The layer budget in layers, for a model of `num_layers`. Raises LimitsRefused when it is deeper."""
        fits = self.layer_budget <= num_layers
        _check(
            "layer_budget", fits, f"{self.layer_budget} is above the model's {num_layers} layers", "Lower it"
        )
        return self.layer_budget or num_layers

    def depths(self, num_layers: int) -> tuple[int, ...]:
        """Legal depths in layers, ascending, the budget last.

        Raises LimitsRefused for an exit outside the model.
        """
        budget = self.budget(num_layers)
        outside = [layer for layer in self.exit_layers if not 1 <= layer <= num_layers]
        _check(
            "exit_layers", not outside, f"{outside} are outside 1..{num_layers}", "Name layers of this model"
        )
        legal = {*self.exit_layers, num_layers}
        _check("layer_budget", budget in legal, f"{budget} is no exit layer", f"Use one of {sorted(legal)}")
        return tuple(sorted(layer for layer in legal if layer <= budget))


@dataclass(frozen=True)
class CapacityReport:
    """What the limits came to. layers_loaded, total_layers: layers; max_batch_size: rows; kv_capacity_tokens:
    tokens.

    weight_bytes: backbone and heads; kv_bytes: of the whole pool; process_start_bytes: held beside what is
    counted here; activation_peak_bytes: temporaries of a step.
    """

    layers_loaded: int
    total_layers: int
    max_batch_size: int
    kv_capacity_tokens: int
    weight_bytes: int
    kv_bytes: int
    process_start_bytes: int
    activation_peak_bytes: int


@dataclass(frozen=True)
class LimitsOutcome:
    """A change that holds.

    seconds: from the call to the step boundary that published it; reprefilled: requests.
    """

    limits: EngineLimits
    capacity: CapacityReport
    seconds: float
    reprefilled: int = 0


def _check(field_name: str, holds: bool, problem: str, fix: str) -> None:
    if not holds:
        raise LimitsRefused(f"limits.{field_name}", problem, fix)
