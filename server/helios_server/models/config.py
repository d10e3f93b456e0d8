"""What a model looks like, read from a Hugging Face `config.json`.

Called by `checkpoint.py` and, without torch, by anything that plans memory. The row of its family
(`families.py`) says which fields it has and how the one decoder block is configured; nothing here may import
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from helios_server.models.end_tokens import read_end_tokens
from helios_server.models.families import Activation, Family, Names, NormKind, family_of
from helios_server.models.json_file import flag, number, refuse, shown, whole
from helios_server.models.published import Published
from helios_server.models.rope_config import RopeBase, RopeScaling, read_rope, read_rope_by_layer
from helios_server.models.sliding import SlidingLayers, read_clipping_window, read_sliding_layers


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of one decoder-only model.

    hidden_size, head_dim, intermediate_size: elements. num_*: counts. vocab_size: tokens of the embedding
    table. max_context: tokens that may be attended to exactly (clipped to the window where all layers slide:
    within it sliding and full attention are the same); longest_context: tokens that linear rope lets it be
    raised to. norm_eps: as in the checkpoint. ropes: one base for all layers, or that of full layers and that
    of sliding ones; none with learned positions, whose table has position_offset rows before the first
    token's. *_bias, qk_norm, tied_embeddings: switches. query_scale: of the scores, beside head_dim ** -0.5;
    embedding_scale: of what the table holds. sliding: where some layers have a window, and others none.
    eos_token_ids: each below vocab_size. published: how the checkpoint is quantised; None: it holds floats.
    notes: what was ignored, in words.
    """

    family: str
    names: Names
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    longest_context: int
    norm: NormKind
    norm_eps: float
    ropes: tuple[RopeBase, ...]
    position_offset: int | None
    tied_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    activation: Activation
    query_scale: float
    embedding_scale: float
    sliding: SlidingLayers | None
    eos_token_ids: tuple[int, ...]
    published: Published | None
    notes: tuple[str, ...]

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
        """Builds the config from the content of `config.json` and, where there is one, of
        `generation_config.json`; refuses by field name what the block cannot do."""
        family = family_of(config)
        _refuse_unknown_features(config, family)
        hidden_size, num_layers = whole(config, "hidden_size"), whole(config, "num_hidden_layers")
        num_heads, num_kv_heads, head_dim = _heads(config, family)
        vocab_size = whole(config, "vocab_size")
        clip = read_clipping_window(config, family)
        trained = whole(config, "max_position_embeddings", family.max_context)
        ropes = _ropes(config, family, trained)
        stretched = int(trained * _stretch(ropes))
        qkv_bias, o_bias, mlp_bias = _biases(config, family)
        ends = read_end_tokens(config, generation or {}, family.eos_token_id, vocab_size)
        return cls(
            family=family.name,
            names=family.names,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            intermediate_size=whole(config, family.inner_field),
            vocab_size=vocab_size,
            max_context=min(trained, clip or trained),
            longest_context=min(stretched, clip or stretched),
            norm=family.norm,
            norm_eps=_norm_eps(config, family),
            ropes=ropes,
            position_offset=family.position_offset,
            tied_embeddings=flag(config, "tie_word_embeddings", family.tied_embeddings),
            qkv_bias=qkv_bias,
            o_bias=o_bias,
            mlp_bias=mlp_bias,
            qk_norm=family.qk_norm,
            activation=family.activation,
            query_scale=_query_scale(config, family, head_dim),
            embedding_scale=hidden_size**0.5 if family.scaled_embedding else 1.0,
            sliding=read_sliding_layers(config, num_layers) if family.sliding_layers else None,
            eos_token_ids=ends.ids,
            published=Published.of(config),
            notes=ends.ignored,
        )

    def context(self, asked: int | None) -> int:
        """Tokens of prompt and output that are served: as many as are asked for, at most longest_context.
        None: max_context."""
        return min(asked or self.max_context, self.longest_context)

    @property
    def q_size(self) -> int:
        """Elements of all query heads of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads (or all value heads) of one token."""
        return self.num_kv_heads * self.head_dim

    @property
    def plain_block(self) -> bool:
        """Whether a layer is Llama's, which the native kernels know: RMS norm before attention and MLP, SiLU
        with a gate, one rotary base, one kind of attention; perhaps biases, and norms of queries and keys."""
        return (
            self.norm == "rms"
            and self.activation == "silu"
            and len(self.names.norms) == 2
            and self.names.gate is not None
            and len(self.ropes) == 1
            and self.query_scale == 1.0
            and self.sliding is None
        )

    def window(self, layer: int) -> int | None:
        """Tokens that a token attends to in a layer, itself included; None: all before it."""
        return self.sliding.window if self.sliding and self.sliding.slides(layer) else None


def _heads(config: Mapping[str, Any], family: Family) -> tuple[int, int, int]:
    """Query heads, key and value heads, elements of each."""
    heads, hidden_size = whole(config, "num_attention_heads"), whole(config, "hidden_size")
    own: Mapping[str, Any] = config if family.grouped else {}
    absent = family.num_kv_heads if "num_key_value_heads" not in own else None
    kv_heads = whole(own, "num_key_value_heads", absent or heads)
    if heads % kv_heads:
        raise refuse("num_key_value_heads", f"{kv_heads} does not divide {heads}")
    if own.get("head_dim") is None and not family.head_dim and hidden_size % heads:
        raise refuse("hidden_size", f"{hidden_size} is no multiple of num_attention_heads {heads}")
    head_dim = whole(own, "head_dim", family.head_dim or hidden_size // heads)
    if head_dim % 2 and family.position_offset is None:
        raise refuse("head_dim", f"{head_dim} is odd, rotary embedding needs pairs")
    return heads, kv_heads, head_dim


def _biases(config: Mapping[str, Any], family: Family) -> tuple[bool, bool, bool]:
    """Of queries, keys and values; of attention's output; of the MLP."""
    everywhere = family.enable_bias and flag(config, "enable_bias", True)
    attention = everywhere or (family.attention_bias and flag(config, "attention_bias"))
    mlp = everywhere or (family.mlp_bias and flag(config, "mlp_bias"))
    return family.qkv_bias or attention, attention, mlp


def _norm_eps(config: Mapping[str, Any], family: Family) -> float:
    if family.norm_eps is not None:
        return family.norm_eps
    return 0.0 if config.get("rms_norm_eps") == 0 else number(config, "rms_norm_eps", 1e-6)


def _query_scale(config: Mapping[str, Any], family: Family, head_dim: int) -> float:
    """What makes query_pre_attn_scalar ** -0.5 of head_dim ** -0.5."""
    if family.query_scalar is None:
        return 1.0
    return float((head_dim / number(config, "query_pre_attn_scalar", family.query_scalar)) ** 0.5)


def _ropes(config: Mapping[str, Any], family: Family, trained: int) -> tuple[RopeBase, ...]:
    if family.position_offset is not None:
        return ()
    return read_rope_by_layer(config, trained) if family.sliding_layers else (read_rope(config, trained),)


def _stretch(ropes: Sequence[RopeBase]) -> float:
    """How many times its context a model may be asked for; the first base is of layers that attend to all."""
    scaling = ropes[0].scaling if ropes else None
    return max(1.0, scaling.factor) if _is_linear(scaling) else 1.0


def _is_linear(scaling: RopeScaling | None) -> TypeGuard[RopeScaling]:
    return scaling is not None and scaling.kind == "linear"


def _refuse_unknown_features(config: Mapping[str, Any], family: Family) -> None:
    act = config.get(family.activation_field)
    if act not in (None, family.activation) and (act, family.activation) != ("swish", "silu"):
        raise refuse(family.activation_field, f"{shown(act)} is not supported, only {family.activation}")
    for name, only in family.fixed.items():
        found = config.get(name)
        if found is not None and found is not only:
            raise refuse(name, f"{shown(found)} is not supported, only {shown(only)}")
    if (
        family.width_field
        and whole(config, family.width_field, hidden := whole(config, "hidden_size")) != hidden
    ):
        found = shown(config[family.width_field])
        raise refuse(family.width_field, f"{found} is not supported, only hidden_size {hidden}")
