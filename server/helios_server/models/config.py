"""What a model looks like, read from a Hugging Face `config.json`.

Called by `checkpoint.py` and, without torch, by anything that plans memory. One spec row per family says
how the one decoder block is configured; nothing here may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from helios_server.errors import UnsupportedModelError
from helios_server.models.end_tokens import read_end_tokens
from helios_server.models.json_file import flag, number, refuse, shown, whole
from helios_server.models.rope_config import RopeScaling, read_rope

UNQUANTISED = "Give the model as it was before it was quantised, in a float dtype"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of one decoder-only model.

    hidden_size, head_dim, intermediate_size: elements. num_*: counts. vocab_size: tokens of the embedding
    table. max_context: tokens that may be attended to exactly (clipped to the sliding window, within which
    sliding and full attention are the same); longest_context: tokens that linear rope lets it be raised to.
    norm_eps, rope_theta: as in the checkpoint. *_bias, qk_norm, tied_embeddings: switches. eos_token_ids:
    each below vocab_size. notes: what was ignored, in words.
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
    longest_context: int
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
    eos_token_ids: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
        """Builds the config from the content of `config.json` and, where there is one, of
        `generation_config.json`; refuses by field name what the block cannot do."""
        family = _family(config)
        _refuse_unknown_features(config)
        num_heads, num_kv_heads, head_dim = _heads(config, family)
        vocab_size = whole(config, "vocab_size")
        window = _sliding_window(config, family)
        trained = whole(config, "max_position_embeddings", family.max_context)
        rope_theta, rope_scaling = read_rope(config, trained)
        stretched = int(trained * max(1.0, rope_scaling.factor)) if _stretches(rope_scaling) else trained
        attention_bias = family.attention_bias and flag(config, "attention_bias")
        ends = read_end_tokens(config, generation or {}, family.eos_token_id, vocab_size)
        return cls(
            family=family.name,
            hidden_size=whole(config, "hidden_size"),
            num_layers=whole(config, "num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            intermediate_size=whole(config, "intermediate_size"),
            vocab_size=vocab_size,
            max_context=min(trained, window or trained),
            longest_context=min(stretched, window or stretched),
            norm_eps=0.0 if config.get("rms_norm_eps") == 0 else number(config, "rms_norm_eps", 1e-6),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            tied_embeddings=flag(config, "tie_word_embeddings"),
            qkv_bias=family.qkv_bias or attention_bias,
            o_bias=attention_bias,
            mlp_bias=family.mlp_bias and flag(config, "mlp_bias"),
            qk_norm=family.qk_norm,
            hidden_act=config.get("hidden_act") or "silu",
            sliding_window=window,
            eos_token_ids=ends.ids,
            notes=ends.ignored,
        )

    def context(self, asked: int | None) -> int:
        """Tokens of prompt and output that are served: as many as are asked for, at most longest_context.
        None: max_context."""
        return min(asked or self.max_context, self.longest_context)

    @property
    def plain_block(self) -> bool:
        """Whether the block is Llama's: what the native kernels know."""
        return self.family in _FAMILIES

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

    max_context (tokens), num_kv_heads, head_dim (elements) and eos_token_id are transformers' defaults, for a
    config.json without the field; None: as many key heads as heads, hidden_size / heads, no end token.
    """

    name: str
    max_context: int
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    always_slides: bool = False
    num_kv_heads: int | None = None
    head_dim: int | None = None
    eos_token_id: int | None = None


_FAMILIES = {
    "llama": _Family("llama", 2048, attention_bias=True, mlp_bias=True, eos_token_id=2),
    "mistral": _Family("mistral", 131072, always_slides=True, num_kv_heads=8, eos_token_id=2),
    "qwen2": _Family("qwen2", 32768, qkv_bias=True, num_kv_heads=32),
    "qwen3": _Family("qwen3", 32768, attention_bias=True, qk_norm=True, num_kv_heads=32, head_dim=128),
}
_SLIDING_WINDOW = 4096  # tokens, where a family slides and config.json does not say


def _family(config: Mapping[str, Any]) -> _Family:
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get("llama" if model_type == "smollm" else model_type)
    if family is None:
        raise UnsupportedModelError(
            "model_type", f"'{model_type}' is not supported", f"Use a model of {', '.join(sorted(_FAMILIES))}"
        )
    return family


def _heads(config: Mapping[str, Any], family: _Family) -> tuple[int, int, int]:
    """Query heads, key and value heads, elements of each."""
    heads, hidden_size = whole(config, "num_attention_heads"), whole(config, "hidden_size")
    absent = family.num_kv_heads if "num_key_value_heads" not in config else None
    kv_heads = whole(config, "num_key_value_heads", absent or heads)
    if heads % kv_heads:
        raise refuse("num_key_value_heads", f"{kv_heads} does not divide {heads}")
    if config.get("head_dim") is None and not family.head_dim and hidden_size % heads:
        raise refuse("hidden_size", f"{hidden_size} is no multiple of num_attention_heads {heads}")
    head_dim = whole(config, "head_dim", family.head_dim or hidden_size // heads)
    if head_dim % 2:
        raise refuse("head_dim", f"{head_dim} is odd, rotary embedding needs pairs")
    return heads, kv_heads, head_dim


def _refuse_unknown_features(config: Mapping[str, Any]) -> None:
    act = config.get("hidden_act")
    if act not in (None, "silu", "swish"):
        raise refuse("hidden_act", f"{shown(act)} is not supported, only silu")
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UnsupportedModelError(
            "quantization_config",
            f"quantised checkpoints are not supported, found {shown(method)}",
            UNQUANTISED,
        )


def _sliding_window(config: Mapping[str, Any], family: _Family) -> int | None:
    slides = family.always_slides or flag(config, "use_sliding_window")
    if not slides or config.get("sliding_window", _SLIDING_WINDOW) in (None, 0):
        return None
    return whole(config, "sliding_window", _SLIDING_WINDOW)


def _stretches(scaling: RopeScaling | None) -> TypeGuard[RopeScaling]:
    return scaling is not None and scaling.kind == "linear"
