"""The families that the one decoder block serves: a row each, which says how it differs from Llama.

Read by `config.py`; everything else asks the `ModelConfig`. A row holds kinds, names and transformers'
defaults, never code, and nothing here may import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from helios_server.errors import UnsupportedModelError

# rms: Llama's; rms_offset: RMS norm whose weight is what is added to one; layer: with mean and bias.
NormKind = Literal["rms", "rms_offset", "layer"]
Activation = Literal["silu", "gelu_pytorch_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class Names:
    """Where transformers' causal model keeps a family's tensors. None: the family has no such part.

    embedding, positions: whole names; final_norm: without `.weight`; layers: what stands before a layer's
    number; the others: within a layer, without `.weight`. Those that are alike in all families are not here.
    """

    embedding: str = "model.embed_tokens.weight"
    positions: str | None = None
    final_norm: str = "model.norm"
    layers: str = "model.layers"
    before_attention: str = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str | None = None
    attention_out: str = "self_attn.o_proj"
    gate: str | None = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"

    @property
    def norms(self) -> tuple[str, ...]:
        """A layer's norms of the hidden state, in the order in which they are applied."""
        norms = (self.before_attention, self.after_attention, self.before_mlp, self.after_mlp)
        return tuple(norm for norm in norms if norm)

    @property
    def roots(self) -> tuple[str, ...]:
        """How the names of a base model begin, which lack `model.`."""
        whole = (self.layers, self.embedding, self.final_norm)
        return tuple({f"{name.removeprefix('model.').partition('.')[0]}." for name in whole})


@dataclass(frozen=True, slots=True)
class Family:
    """One spec row.

    attention_bias, mlp_bias, enable_bias (of both, unless it is off): the family obeys that field; qkv_bias:
    always has it. always_slides: the window clips the context; sliding_layers: some layers have one.
    grouped: reads num_key_value_heads and head_dim. norm_eps: a constant, None: rms_norm_eps.
    position_offset: rows of the learned positions' table before the first token's; None: rotary.
    scaled_embedding: by the root of hidden_size. inner_field, activation_field: its names for
    intermediate_size and hidden_act. width_field: must be hidden_size too. fixed: the one value that a field
    may have. essentials: of its fields, those that change what is computed and that Llama has not.

    max_context (tokens), num_kv_heads, head_dim (elements), query_scalar (query_pre_attn_scalar),
    eos_token_id and tied_embeddings are transformers' defaults, for a config.json without the field; None: as
    many key heads as heads, hidden_size / heads, no such scalar, no end token.
    """

    name: str
    max_context: int
    names: Names = Names()
    norm: NormKind = "rms"
    norm_eps: float | None = None
    activation: Activation = "silu"
    attention_bias: bool = False
    qkv_bias: bool = False
    mlp_bias: bool = False
    enable_bias: bool = False
    qk_norm: bool = False
    always_slides: bool = False
    sliding_layers: bool = False
    grouped: bool = True
    num_kv_heads: int | None = None
    head_dim: int | None = None
    query_scalar: int | None = None
    position_offset: int | None = None
    scaled_embedding: bool = False
    tied_embeddings: bool = False
    eos_token_id: int | None = None
    inner_field: str = "intermediate_size"
    activation_field: str = "hidden_act"
    width_field: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    essentials: tuple[str, ...] = ()


_OPT = Family(
    "opt",
    2048,
    names=Names(
        embedding="model.decoder.embed_tokens.weight",
        positions="model.decoder.embed_positions.weight",
        final_norm="model.decoder.final_layer_norm",
        layers="model.decoder.layers",
        before_attention="self_attn_layer_norm",
        before_mlp="final_layer_norm",
        attention_out="self_attn.out_proj",
        gate=None,
        up="fc1",
        down="fc2",
    ),
    norm="layer",
    norm_eps=1e-5,
    activation="relu",
    enable_bias=True,
    grouped=False,
    position_offset=2,
    tied_embeddings=True,
    eos_token_id=2,
    inner_field="ffn_dim",
    activation_field="activation_function",
    width_field="word_embed_proj_dim",
    fixed={
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "layer_norm_elementwise_affine": True,
    },
    essentials=("ffn_dim", "activation_function", "enable_bias"),
)
_GEMMA3 = Family(
    "gemma3_text",
    131072,
    names=Names(
        after_attention="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        after_mlp="post_feedforward_layernorm",
    ),
    norm="rms_offset",
    activation="gelu_pytorch_tanh",
    attention_bias=True,
    qk_norm=True,
    sliding_layers=True,
    num_kv_heads=4,
    head_dim=256,
    query_scalar=256,
    scaled_embedding=True,
    tied_embeddings=True,
    eos_token_id=1,
    activation_field="hidden_activation",
    fixed={
        "use_bidirectional_attention": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    essentials=(
        "hidden_activation", "query_pre_attn_scalar", "layer_types", "sliding_window_pattern",
        "rope_local_base_freq",
    ),
)  # fmt: skip
_FAMILIES = {
    "llama": Family("llama", 2048, attention_bias=True, mlp_bias=True, eos_token_id=2),
    "mistral": Family("mistral", 131072, always_slides=True, num_kv_heads=8, eos_token_id=2),
    "qwen2": Family("qwen2", 32768, qkv_bias=True, num_kv_heads=32),
    "qwen3": Family("qwen3", 32768, attention_bias=True, qk_norm=True, num_kv_heads=32, head_dim=128),
    "opt": _OPT,
    "gemma3_text": _GEMMA3,
}
_ALIASES = {"smollm": "llama"}
_ADVICE = {
    "gemma3": "Save its language model alone: load it with transformers' AutoModelForImageTextToText, then "
    "model.language_model.save_pretrained, and copy the tokenizer"
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The row of a config.json. Raises UnsupportedModelError: model_type."""
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get(_ALIASES.get(model_type, model_type))
    if family is None:
        advice = _ADVICE.get(model_type, f"Use a model of {', '.join(sorted(_FAMILIES))}")
        raise UnsupportedModelError("model_type", f"'{model_type}' is not supported", advice)
    return family
