"""The decoder block that serves every supported family, configured by `ModelConfig`.

Called by `backbone.py`. It knows nothing of caches or batches: attention is a function that the caller gives.
Its casts follow transformers' exactly; that is what the oracle tests hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.families import Activation
from helios_server.models.linear import Linear, Numerics
from helios_server.models.norm import Norm, make_norm
from helios_server.models.rope import Rope, of_base, rotate
from helios_server.native.quantised import Quantised, floats, joined

# attend(q, k, v, window) -> [T, heads, head_dim]; q: [T, heads, head_dim], k and v: [T, kv_heads, head_dim];
# q and k are rotated already. window: tokens that a token attends to, itself included; None: all before it.
# Softmax scale: head_dim ** -0.5, the default of scaled_dot_product_attention.
Attend = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class DecoderLayer:
    """One pre-norm block: attention and an MLP. Built from the layer's tensors as they stand in the
    checkpoint; parts that the family lacks are None."""

    __slots__ = (
        "_activate",
        "_after_attention",
        "_after_mlp",
        "_config",
        "_down",
        "_gate_up",
        "_gated",
        "_input_norm",
        "_k_norm",
        "_o",
        "_post_norm",
        "_q_norm",
        "_qkv",
        "_rope_base",
        "_window",
        "index",
        "nbytes",
    )  # fmt: skip

    def __init__(
        self, index: int, tensors: dict[str, Tensor | Quantised], config: ModelConfig, numerics: Numerics
    ) -> None:
        self.index = index
        self._config = config
        self._window = config.window(index)
        self._rope_base = 1 if self._window is not None else 0
        parts, names = _Parts(tensors, config, numerics), config.names
        self._input_norm = parts.norm(names.before_attention)
        self._after_attention = parts.norm(names.after_attention) if names.after_attention else None
        self._post_norm = parts.norm(names.before_mlp)
        self._after_mlp = parts.norm(names.after_mlp) if names.after_mlp else None
        self._q_norm = parts.norm("self_attn.q_norm") if config.qk_norm else None
        self._k_norm = parts.norm("self_attn.k_norm") if config.qk_norm else None
        self._qkv = parts.fused(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), config.qkv_bias)
        self._o = parts.fused((names.attention_out,), config.o_bias)
        self._gated = names.gate is not None
        self._gate_up = parts.fused((names.gate, names.up) if names.gate else (names.up,), config.mlp_bias)
        self._down = parts.fused((names.down,), config.mlp_bias)
        self._activate = _ACTIVATIONS[config.activation]
        self.nbytes = parts.nbytes

    def with_keys_and_values(self, numerics: Numerics) -> DecoderLayer:
        """The same weights; its keys and values are held as these numerics say: it knows nothing of them."""
        return self

    def forward(self, hidden: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """hidden: [T, hidden_size], activation dtype; rope: cos and sin of the T positions. Returns [T,
        hidden_size]."""
        mixed = self._attention(self._input_norm(hidden), rope, attend)
        hidden = hidden + (self._after_attention(mixed) if self._after_attention else mixed)
        mixed = self._mlp(self._post_norm(hidden))
        return hidden + (self._after_mlp(mixed) if self._after_mlp else mixed)

    def keys_and_values(self, hidden: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """As `attend` takes them, of T tokens alone that no query of this layer comes from."""
        config = self._config
        both = self._qkv.from_column(config.q_size, self._input_norm(hidden))
        k, v = both.reshape(-1, 2, config.num_kv_heads, config.head_dim).unbind(1)
        return self._placed(k, self._k_norm, rope), v

    def _attention(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:
        config = self._config
        q, k, v = torch.split(self._qkv(x), [config.q_size, config.kv_size, config.kv_size], dim=-1)
        q = self._placed(q.reshape(-1, config.num_heads, config.head_dim), self._q_norm, rope)
        k = self._placed(k.reshape(-1, config.num_kv_heads, config.head_dim), self._k_norm, rope)
        v = v.reshape(-1, config.num_kv_heads, config.head_dim)
        if config.query_scale != 1.0:
            q = q * config.query_scale
        return self._o(attend(q, k, v, self._window).reshape(-1, config.q_size))

    def _placed(self, heads: Tensor, norm: Norm | None, rope: Rope) -> Tensor:
        """Queries or keys, [T, heads, head_dim], normed and rotated as far as the family does so."""
        heads = heads if norm is None else norm(heads)
        if not self._config.ropes:
            return heads
        return rotate(heads, of_base(rope, self._rope_base, self._config.head_dim))

    def _mlp(self, x: Tensor) -> Tensor:
        if not self._gated:
            return self._down(self._activate(self._gate_up(x)))
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        return self._down(self._activate(gate) * up)


class _Parts:
    """Takes a layer's tensors one after the other and counts resident bytes."""

    def __init__(
        self, tensors: dict[str, Tensor | Quantised], config: ModelConfig, numerics: Numerics
    ) -> None:
        self._tensors = tensors
        self._config = config
        self._numerics = numerics
        self.nbytes = 0

    def norm(self, name: str) -> Norm:
        weight = self._numerics.weight(floats(self._tensors[f"{name}.weight"]))
        bias = self._tensors.get(f"{name}.bias")
        wide_bias = None if bias is None else self._numerics.weight(floats(bias))
        norm = make_norm(self._config.norm, weight, wide_bias, self._config.norm_eps)
        self.nbytes += norm.nbytes
        return norm

    def fused(self, names: tuple[str, ...], bias: bool) -> Linear:
        """One matrix out of several that read the same input; fewer and larger multiplications."""
        weight = joined([self._tensors[f"{name}.weight"] for name in names])
        offsets = torch.cat([floats(self._tensors[f"{name}.bias"]) for name in names]) if bias else None
        linear = Linear(weight, offsets, self._numerics)
        self.nbytes += linear.nbytes
        return linear
