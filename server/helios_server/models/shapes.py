"""The tensors that a config.json promises, by their shapes alone; no file is opened and torch not imported.

Called by `layout.py`, which compares a checkpoint's headers with them, and by whoever plans memory before
there is a checkpoint. Names are those of transformers' causal model of the family.
"""

from __future__ import annotations

import math

from helios_contract.serves import AUTO

from helios_server.models.config import ModelConfig
from helios_server.planning.shape import Shape


def shape_of(config: ModelConfig, max_context: int | None = None) -> Shape:
    """What memory depends on. max_context: tokens to be served, None: the model's."""
    layer, context = layer_shapes(config), config.context(max_context)
    flat = sum(shape[0] for shape in layer.values() if len(shape) == 1)
    final = sum(math.prod(shape) for shape in norm_shapes(config, "norm", config.hidden_size).values())
    learned = config.names.positions is not None
    return Shape(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        matrices=tuple((shape[0], shape[1]) for shape in layer.values() if len(shape) == 2),
        layer_wide=flat,
        fixed_wide=final + context * config.head_dim * len(config.ropes),
        positions=context * config.hidden_size if learned else 0,
        tied=config.tied_embeddings,
        published="int8" if config.published else AUTO,
    )


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """One decoder layer's tensors, by their name within the layer; a matrix is [out, in]."""
    hidden, inner, names = config.hidden_size, config.intermediate_size, config.names
    matrices = {
        "self_attn.q_proj": (config.q_size, hidden, config.qkv_bias),
        "self_attn.k_proj": (config.kv_size, hidden, config.qkv_bias),
        "self_attn.v_proj": (config.kv_size, hidden, config.qkv_bias),
        names.attention_out: (hidden, config.q_size, config.o_bias),
    }
    matrices |= {name: (inner, hidden, config.mlp_bias) for name in (names.gate, names.up) if name}
    matrices |= {names.down: (hidden, inner, config.mlp_bias)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (m, n) for name, (m, n, _) in matrices.items()}
    shapes |= {f"{name}.bias": (m,) for name, (m, _, biased) in matrices.items() if biased}
    for norm in names.norms:
        shapes |= norm_shapes(config, norm, hidden)
    for norm in ("self_attn.q_norm", "self_attn.k_norm") if config.qk_norm else ():
        shapes |= norm_shapes(config, norm, config.head_dim)
    return shapes


def norm_shapes(config: ModelConfig, name: str, size: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one norm of `size` elements."""
    return {f"{name}.{part}": (size,) for part in norm_parts(config)}


def norm_parts(config: ModelConfig) -> tuple[str, ...]:
    """What a norm consists of: its weight, and a bias where there is one."""
    return ("weight", "bias") if config.norm == "layer" else ("weight",)
