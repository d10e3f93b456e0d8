"""The native path: layers as the CPU's kernels take them, a segment of them in one call.

Kept by `backbone.py` for the models whose block the kernels know; torch's path is the oracle that it is held
to. A row's result does not depend, bit for bit, on the rows beside it, on how a prompt is cut in chunks or on
the number of threads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import copy
from itertools import groupby
from operator import attrgetter, is_

import torch
from torch import Tensor

from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from helios_server.models.rope import RopeTable
from helios_server.models.rows import Arrays, Rows
from helios_server.models.step import Step
from helios_server.native.layers import Layer, Shape
from helios_server.native.layers import Step as NativeStep
from helios_server.native.library import Library
from helios_server.native.matrix import Matrix
from helios_server.native.quantised import Quantised, floats, joined

logger = logging.getLogger(__name__)

_WITHIN_FLOAT16 = 60000.0
"""Of a key or a value: the largest finite float16 is 65504, less what rounding may add."""


class NativeLayer:
    """One layer, packed. tensors: emptied on the way; keys_and_values: the format that its own have in their
    slab."""

    __slots__ = ("_fits_float16", "index", "kernel", "keys_and_values", "nbytes")

    def __init__(
        self, index: int, tensors: dict[str, Tensor | Quantised], config: ModelConfig, numerics: Numerics
    ) -> None:
        self.index = index
        self._fits_float16 = numerics.weights != torch.float16 or may_be_float16(tensors, config)
        self.keys_and_values = self._format(numerics)
        parts = _Parts(tensors, numerics)
        self.kernel = Layer(
            input_norm=parts.norm("input_layernorm"),
            post_norm=parts.norm("post_attention_layernorm"),
            q_norm=parts.norm("self_attn.q_norm") if config.qk_norm else None,
            k_norm=parts.norm("self_attn.k_norm") if config.qk_norm else None,
            qkv=parts.fused(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), config.qkv_bias),
            o=parts.fused(("self_attn.o_proj",), config.o_bias),
            gate_up=parts.fused(("mlp.gate_proj", "mlp.up_proj"), config.mlp_bias, gated=True),
            down=parts.fused(("mlp.down_proj",), config.mlp_bias),
        )
        self.nbytes = self.kernel.nbytes

    def with_keys_and_values(self, numerics: Numerics) -> NativeLayer:
        """The same weights; its keys and values are held as these numerics say."""
        other = copy(self)
        other.keys_and_values = self._format(numerics)
        return other

    def _format(self, numerics: Numerics) -> torch.dtype:
        if numerics.keys_and_values != torch.float16 or self._fits_float16:
            return numerics.keys_and_values
        logger.info("layer %d keeps bfloat16 keys and values: they may leave float16's range", self.index)
        return torch.bfloat16


class NativePath:
    """Runs layers of one model."""

    def __init__(self, library: Library, config: ModelConfig, rope: RopeTable) -> None:
        self._library = library
        self._config = config
        self._rope = rope
        self._shapes: dict[tuple[int, torch.dtype], Shape] = {}
        self._read: tuple[Arrays, NativeStep] | None = None

    def run(self, layers: Sequence[NativeLayer], hidden: Tensor, step: Step) -> Tensor:
        """hidden: [T, hidden_size] float32, overwritten and returned."""
        new, page_tokens = self._as_read(step.rows), step.slabs.layout.page_tokens
        for dtype, segment in groupby(layers, key=attrgetter("keys_and_values")):
            alike = list(segment)
            slabs = [_as_kept(step.slabs.slab(layer.index), dtype) for layer in alike]
            kernels = [layer.kernel for layer in alike]
            self._library.run_layers(self._shape(page_tokens, dtype), kernels, hidden, new, slabs)
        return hidden

    def _as_read(self, rows: Rows) -> NativeStep:
        """Made once for arrays that are filled anew in every step."""
        arrays, read = rows.arrays, self._read
        if read is None or not all(map(is_, arrays, read[0])):
            positions, slots, tables, contexts, pages = map(torch.from_numpy, arrays)
            new = NativeStep(positions, slots, tables, contexts, pages, *self._rope.tables)
            read = self._read = arrays, new
        return read[1]

    def _shape(self, page_tokens: int, dtype: torch.dtype) -> Shape:
        known = self._shapes.get((page_tokens, dtype))
        if known is None:
            config = self._config
            known = self._shapes[page_tokens, dtype] = Shape(
                hidden=config.hidden_size,
                heads=config.num_heads,
                kv_heads=config.num_kv_heads,
                head_dim=config.head_dim,
                inner=config.intermediate_size,
                eps=config.norm_eps,
                page_tokens=page_tokens,
                kv=dtype,
            )
        return known


def _as_kept(slab: Tensor, dtype: torch.dtype) -> Tensor:
    return slab if slab.dtype == dtype else slab.view(dtype)


class _Parts:
    """Takes a layer's tensors out, one after the other: what is packed need not be held as it was read."""

    def __init__(self, tensors: dict[str, Tensor | Quantised], numerics: Numerics) -> None:
        self._tensors = tensors
        self._numerics = numerics

    def norm(self, name: str) -> Tensor:
        return self._numerics.weight(floats(self._tensors.pop(f"{name}.weight")))

    def fused(self, names: tuple[str, ...], bias: bool, *, gated: bool = False) -> Matrix:
        """One matrix out of several that read the same input."""
        offsets = floats(self._joined([f"{name}.bias" for name in names])) if bias else None
        return self._numerics.pack(self._joined([f"{name}.weight" for name in names]), offsets, gated=gated)

    def _joined(self, names: list[str]) -> Tensor | Quantised:
        return joined([self._tensors.pop(name) for name in names])


def may_be_float16(tensors: dict[str, Tensor | Quantised], config: ModelConfig) -> bool:
    """Whether no key or value of a layer can leave float16's range, whatever the layer reads.

    From its weights alone, so that a layer has one format at every budget. What a norm gives is at most
    sqrt(size) long before its weight; rotation mixes two elements of a key.
    """
    read = floats(tensors["input_layernorm.weight"]).float()
    largest = _reach(tensors, "self_attn.v_proj", read)
    if config.qk_norm:
        weight = floats(tensors["self_attn.k_norm.weight"]).float()
        key = math.sqrt(config.head_dim) * float(weight.abs().max())
    else:
        key = math.sqrt(2) * _reach(tensors, "self_attn.k_proj", read)
    return largest <= _WITHIN_FLOAT16 and key <= _WITHIN_FLOAT16  # neither is NaN


def _reach(tensors: dict[str, Tensor | Quantised], name: str, norm: Tensor) -> float:
    """The largest element that a product with what a norm of this weight gives can have."""
    weight, bias = floats(tensors[f"{name}.weight"]).float(), tensors.get(f"{name}.bias")
    longest = math.sqrt(weight.shape[1]) * torch.linalg.vector_norm(weight * norm, dim=1)
    return float((longest if bias is None else longest + floats(bias).float().abs()).max())
