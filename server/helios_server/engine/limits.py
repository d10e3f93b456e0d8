"""How this process computes, and what of the limits it can serve.

`EngineConfig` is fixed for the life of the process; the limits (`helios_contract.limits`) change while it
serves (`changes.py`). Called by whoever takes limits in and by whoever loads a model.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from helios_contract.limits import Limits
from helios_contract.serves import EXIT_MODES, KV_CACHE_DTYPES, WEIGHT_DTYPES
from helios_contract.telemetry import Capacity

from helios_server.engine import exit_mode
from helios_server.errors import LimitsRefused

_STEP_TOKENS = {"cpu": 128, "accelerator": 1024}
"""New tokens in one step. A core's time grows with each token; on an accelerator a step of 128 takes hardly
longer than one of 1 (measured: docs/decisions/0098-steps-on-an-accelerator.md).
"""
_WAYS_TO_SERVE = {
    "exit_mode": EXIT_MODES,
    "weight_dtype": WEIGHT_DTYPES,
    "kv_cache_dtype": KV_CACHE_DTYPES,
}


@dataclass(frozen=True)
class EngineConfig:
    """How this process computes."""

    device: str = "cpu"
    """A torch device."""
    dtype: str | None = None
    """A name. None: auto, what the device multiplies best."""
    threads: int | None = None
    """CPU threads of torch. None: its own choice."""
    step_tokens: int = 0
    """New tokens in one step. 0: the device's default."""
    page_tokens: int = 16
    """Tokens in a page of the KV cache."""
    max_context: int | None = None
    """Tokens. None: the model's."""
    volumes: Path | None = None
    """The folder that stands for mounted claims."""
    offline: bool | None = None
    """Fetch nothing. None: what the environment says."""
    max_queue_tokens: int | None = None
    """Tokens of the prompts that wait. None: as many as fill the KV cache 8 times."""
    prefix_caching: bool = True
    """Compute a prompt's beginning once, as long as its pages last."""

    def __post_init__(self) -> None:
        default = _STEP_TOKENS["cpu" if self.device == "cpu" else "accelerator"]
        object.__setattr__(self, "step_tokens", self.step_tokens or default)


def check(limits: Limits) -> None:
    """Raises LimitsRefused for what no model can serve; what this one cannot, `depths` and loading say."""
    _check("model_uri", bool(limits.model_uri), "is empty", "Name the model, for example file:///models/chat")
    tokens, percent, queue = limits.tokens_per_request, limits.audit.percent, limits.max_queue_size
    _check("tokens_per_request", tokens >= 1, f"is {tokens}", "Give 1 or more")
    _check("audit.percent", 0 <= percent <= 100, f"is {percent}", "Give 0 to 100")
    _check("max_queue_size", queue >= 1, f"is {queue}", "Give 1 or more")
    threshold = limits.breach_threshold
    _check("breach_threshold", 0 <= threshold <= 1, f"is {threshold}", "Give a probability, 0 to 1")
    for name, known in _WAYS_TO_SERVE.items():
        word = getattr(limits, name)
        _check(name, word in known, f"'{word}' is not something that this release does", f"Use {_any(known)}")
    exit_mode.check(limits)


def check_process(limits: Limits, config: EngineConfig) -> None:
    """Raises LimitsRefused for a precision that this process' device does not have, InvalidRequest for an
    option that the exit mode does without."""
    exit_mode.check_prefixes(limits, reused=config.prefix_caching)
    has_it = limits.kv_cache_dtype != "fp8" or config.device.startswith("cuda")
    problem = f"'{limits.kv_cache_dtype}' needs a CUDA device, this process has {config.device}"
    _check("kv_cache_dtype", has_it, problem, "Use 'auto' or 'int8'")


def budget(limits: Limits, num_layers: int) -> int:
    """The layer budget in layers, for a model of `num_layers`. Raises LimitsRefused when it is deeper."""
    fits = limits.layer_budget <= num_layers
    problem = f"{limits.layer_budget} is above the model's {num_layers} layers"
    _check("layer_budget", fits, problem, "Lower it")
    return limits.layer_budget or num_layers


def depths(limits: Limits, num_layers: int) -> tuple[int, ...]:
    """Legal depths in layers, ascending, the budget last.

    Raises LimitsRefused for an exit outside the model.
    """
    held = budget(limits, num_layers)
    outside = [layer for layer in limits.exit_layers if not 1 <= layer <= num_layers]
    _check("exit_layers", not outside, f"{outside} are outside 1..{num_layers}", "Name layers of this model")
    legal = {*limits.exit_layers, num_layers}
    _check("layer_budget", held in legal, f"{held} is no exit layer", f"Use one of {sorted(legal)}")
    return tuple(sorted(layer for layer in legal if layer <= held))


@dataclass(frozen=True)
class LimitsOutcome:
    """A change that holds."""

    limits: Limits
    capacity: Capacity
    seconds: float
    """From the call to the step boundary that published it."""
    reprefilled: int = 0
    """Requests that were prefilled again (the model or its precision was exchanged in place)."""


def _check(field_name: str, holds: bool, problem: str, fix: str) -> None:
    if not holds:
        raise LimitsRefused(f"limits.{field_name}", problem, fix)


def _any(words: Collection[str]) -> str:
    return " or ".join(f"'{word}'" for word in words)
