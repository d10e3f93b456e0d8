"""The decoder block that serves every supported family, configured by `ModelConfig`.

Called by `backbone.py`. It knows nothing of caches or batches: attention is a function that the caller gives.
Its casts follow transformers' exactly; that is what the oracle tests hold.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.linear import Linear, Numerics
from helios_server.models.norm import RmsNorm
from helios_server.models.rope import Rope, rotate

# attend(q, k, v) -> [T, heads, head_dim]; q: [T, heads, head_dim], k and v: [T, kv_heads, head_dim];
# q and k are rotated already. Softmax scale: head_dim ** -0.5, the default of scaled_dot_product_attention.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class DecoderLayer:
    """One pre-norm block: attention and a gated MLP. Built from the layer's tensors as they stand in the
    checkpoint."""

    __slots__ = (
        "_config",
        "_down",
        "_gate_up",
        "_input_norm",
        "_k_norm",
        "_o",
        "_post_norm",
        "_q_norm",
        "_qkv",
        "index",
        "nbytes",
    )  # fmt: skip

    def __init__(
        self, index: int, tensors: dict[str, Tensor], config: ModelConfig, numerics: Numerics
    ) -> None:
        self.index = index
        self._config = config
        parts = _Parts(tensors, numerics)
        self._input_norm = parts.norm("input_layernorm", config.norm_eps)
        self._post_norm = parts.norm("post_attention_layernorm", config.norm_eps)
        self._q_norm = parts.norm("self_attn.q_norm", config.norm_eps) if config.qk_norm else None
        self._k_norm = parts.norm("self_attn.k_norm", config.norm_eps) if config.qk_norm else None
        self._qkv = parts.fused(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), config.qkv_bias)
        self._o = parts.fused(("self_attn.o_proj",), config.o_bias)
        self._gate_up = parts.fused(("mlp.gate_proj", "mlp.up_proj"), config.mlp_bias)
        self._down = parts.fused(("mlp.down_proj",), config.mlp_bias)
        self.nbytes = parts.nbytes

    def forward(self, hidden: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """hidden: [T, hidden_size], activation dtype; rope: cos and sin of the T positions. Returns [T,
        hidden_size]."""
        hidden = hidden + self._attention(self._input_norm(hidden), rope, attend)
        return hidden + self._mlp(self._post_norm(hidden))

    def _attention(self, x: Tensor, rope: Rope, attend: Attend) -> Tensor:
        config = self._config
        q, k, v = torch.split(self._qkv(x), [config.q_size, config.kv_size, config.kv_size], dim=-1)
        q = q.reshape(-1, config.num_heads, config.head_dim)
        k = k.reshape(-1, config.num_kv_heads, config.head_dim)
        v = v.reshape(-1, config.num_kv_heads, config.head_dim)
        if self._q_norm is not None and self._k_norm is not None:
            q, k = self._q_norm(q), self._k_norm(k)
        mixed = attend(rotate(q, rope), rotate(k, rope), v)
        return self._o(mixed.reshape(-1, config.q_size))

    def _mlp(self, x: Tensor) -> Tensor:
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        return self._down(F.silu(gate) * up)


class _Parts:
    """Takes a layer's tensors one after the other and counts resident bytes."""

    def __init__(self, tensors: dict[str, Tensor], numerics: Numerics) -> None:
        self._tensors = tensors
        self._numerics = numerics
        self.nbytes = 0

    def norm(self, name: str, eps: float) -> RmsNorm:
        norm = RmsNorm(self._numerics.weight(self._tensors[f"{name}.weight"]), eps)
        self.nbytes += norm.nbytes
        return norm

    def fused(self, names: tuple[str, ...], bias: bool) -> Linear:
        """One matrix out of several that read the same input; fewer and larger multiplications."""
        weight = torch.cat([self._tensors[f"{name}.weight"] for name in names])
        offsets = torch.cat([self._tensors[f"{name}.bias"] for name in names]) if bias else None
        linear = Linear(weight, offsets, self._numerics)
        self.nbytes += linear.nbytes
        return linear
