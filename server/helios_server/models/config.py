"""What a model looks like, read from a Hugging Face `config.json`.

Called by `checkpoint.py` and, without torch, by anything that plans memory. One spec row per family says
how the one decoder block is configured; nothing here may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Frequency scaling of the rotary embedding. kind: `linear` or `llama3`; the rest are the formula's
    factors.

    original_max_context: tokens; low/high_freq_factor and original_max_context are used by `llama3` only.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_context: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of one decoder-only model.

    hidden_size, head_dim, intermediate_size: elements. num_*: counts. vocab_size: tokens of the embedding
    table. max_context: tokens that may be attended to exactly (clipped to the sliding window, within which
    sliding and full attention are the same). norm_eps, rope_theta: as in the checkpoint. *_bias, qk_norm,
    tied_embeddings: switches.
    """

    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    hidden_act: str
    sliding_window: int | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Builds the config from the content of `config.json`; refuses by field name what the block cannot
        do."""
        family = _family(config)
        hidden_size = _positive(config, "hidden_size")
        num_heads = _positive(config, "num_attention_heads")
        head_dim = int(config.get("head_dim") or family.head_dim or hidden_size // num_heads)
        num_kv_heads = int(config.get("num_key_value_heads") or num_heads)
        _require(
            num_heads % num_kv_heads == 0,
            "num_key_value_heads",
            f"{num_kv_heads} does not divide {num_heads}",
        )
        _require(head_dim % 2 == 0, "head_dim", f"{head_dim} is odd, rotary embedding needs pairs")
        _refuse_unknown_features(config)
        window = _sliding_window(config, family)
        trained = int(config.get("max_position_embeddings") or 2048)
        rope_theta, rope_scaling = _rope(config)
        return cls(
            family=family.name,
            hidden_size=hidden_size,
            num_layers=_positive(config, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            intermediate_size=_positive(config, "intermediate_size"),
            vocab_size=_positive(config, "vocab_size"),
            max_context=min(trained, window) if window else trained,
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=family.qkv_bias or (family.attention_bias and bool(config.get("attention_bias", False))),
            o_bias=family.attention_bias and bool(config.get("attention_bias", False)),
            mlp_bias=family.mlp_bias and bool(config.get("mlp_bias", False)),
            qk_norm=family.qk_norm,
            hidden_act=str(config.get("hidden_act", "silu")),
            sliding_window=window,
            bos_token_id=config.get("bos_token_id"),
            eos_token_ids=_token_ids(config.get("eos_token_id")),
        )

    @property
    def q_size(self) -> int:
        """Elements of all query heads of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads (or all value heads) of one token."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class _Family:
    """One spec row. attention_bias, mlp_bias: the family obeys that field; qkv_bias: always has it.
    head_dim: default."""

    name: str
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    always_slides: bool = False
    head_dim: int | None = None


_FAMILIES = {
    "llama": _Family("llama", attention_bias=True, mlp_bias=True),
    "mistral": _Family("mistral", always_slides=True),
    "qwen2": _Family("qwen2", qkv_bias=True),
    "qwen3": _Family("qwen3", attention_bias=True, qk_norm=True, head_dim=128),
}


def _family(config: Mapping[str, Any]) -> _Family:
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get("llama" if model_type == "smollm" else model_type)
    if family is None:
        raise UnsupportedModelError(
            "model_type", f"'{model_type}' is not supported", f"Use a model of {', '.join(sorted(_FAMILIES))}"
        )
    return family


def _positive(config: Mapping[str, Any], field: str) -> int:
    value = config.get(field)
    _require(isinstance(value, int) and value > 0, field, f"expected a positive integer, got {value!r}")
    return int(value)  # type: ignore[arg-type]


def _require(holds: bool, field: str, problem: str) -> None:
    if not holds:
        raise UnsupportedModelError(field, problem, "Check the checkpoint's config.json")


def _refuse_unknown_features(config: Mapping[str, Any]) -> None:
    act = config.get("hidden_act", "silu")
    _require(act in ("silu", "swish"), "hidden_act", f"'{act}' is not supported, only silu")
    partial = (
        _rope_parameters(config).get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    )
    _require(float(partial) == 1.0, "partial_rotary_factor", f"{partial} is not supported, only 1.0")
    _require(
        not config.get("quantization_config"),
        "quantization_config",
        "quantised checkpoints are not supported",
    )


def _sliding_window(config: Mapping[str, Any], family: _Family) -> int | None:
    slides = family.always_slides or bool(config.get("use_sliding_window", False))
    window = config.get("sliding_window") if slides else None
    return int(window) if window else None


def _rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers 5 writes `rope_parameters`; older checkpoints carry `rope_theta` and `rope_scaling`."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    parameters = _rope_parameters(config)
    theta = float(parameters.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3"):
        raise UnsupportedModelError(
            "rope_scaling.rope_type",
            f"'{kind}' is not supported",
            "Use a model with default, linear or llama3 rope",
        )
    missing = [name for name in _ROPE_FIELDS[kind] if name not in parameters]
    _require(not missing, "rope_scaling", f"{kind} needs {', '.join(missing)}")
    return theta, RopeScaling(
        kind=kind,
        factor=float(parameters["factor"]),
        low_freq_factor=float(parameters.get("low_freq_factor", 1.0)),
        high_freq_factor=float(parameters.get("high_freq_factor", 4.0)),
        original_max_context=int(parameters.get("original_max_position_embeddings", 8192)),
    )


_ROPE_FIELDS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def _token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)
