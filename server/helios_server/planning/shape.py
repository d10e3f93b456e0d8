"""What a model takes in memory by its shape alone: the memory law's facts before anything is loaded.

Called by whoever plans before there is a process that could measure (`helios capacity`). The engine measures
what it loads (`engine.memory.measure`); the tests of capacity hold that both agree. Counted are weights,
tables, keys and values, and logits: what a process holds at its start and what a step works in are not
matters of a shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from helios_contract.results import MemoryFacts
from helios_contract.serves import AUTO, Precision

_WIDE = 4
"""Bytes of an element of norms, biases and rotary tables: float32, as the CPU's kernels keep them. On an
accelerator they take half, which is less than a thousandth of a model."""
_LOGIT = 4
_PAGE_TOKENS = 16


@dataclass(frozen=True)
class Format:
    """How a matrix is held. bits: of a weight; column_bytes: beside each output's weights; group: weights of
    an output that share group_bytes, 0: none do."""

    bits: int
    column_bytes: int = 0
    group: int = 0
    group_bytes: int = 0

    def nbytes(self, outputs: int, inputs: int) -> int:
        """Of a matrix [outputs, inputs]."""
        groups = outputs * -(-inputs // self.group) if self.group else 0
        return outputs * inputs * self.bits // 8 + outputs * self.column_bytes + groups * self.group_bytes


WEIGHTS = {
    AUTO: Format(16),
    "int8": Format(8, column_bytes=8),
    "int4": Format(4, group=32, group_bytes=4),
}
"""By weight dtype; auto: a 16-bit format, which is what the engine makes of any float checkpoint."""
KEYS_AND_VALUES = {AUTO: Format(16), "int8": Format(8, column_bytes=4), "fp8": Format(8, column_bytes=4)}
"""The same of keys and values; an output is what one head keeps of one token."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder-only model. Sizes in elements.

    matrices: of one layer, (outputs, inputs) each; layer_wide: elements of its norms and biases; fixed_wide:
    of the final norm and the rotary tables; positions: of learned positions, at the width of weights; tied:
    embedding and LM head are one matrix; published: the format of the layers' matrices that `auto` is.
    """

    num_layers: int
    hidden_size: int
    vocab_size: int
    kv_heads: int
    head_dim: int
    matrices: tuple[tuple[int, int], ...]
    layer_wide: int
    fixed_wide: int
    positions: int
    tied: bool
    published: str = AUTO


def facts_of(shape: Shape, precision: Precision, page_tokens: int = _PAGE_TOKENS) -> MemoryFacts:
    """The law's arguments in one precision. KeyError: a precision that has no format."""
    weights, kept = WEIGHTS[precision.weight_dtype], KEYS_AND_VALUES[precision.kv_cache_dtype]
    of_layers = WEIGHTS[shape.published] if precision.weight_dtype == AUTO else weights
    table = (shape.vocab_size, shape.hidden_size)
    embedding = 0 if shape.tied else WEIGHTS[AUTO].nbytes(*table)
    positions = WEIGHTS[AUTO].nbytes(1, shape.positions)
    return MemoryFacts(
        process_start_bytes=0,
        fixed_bytes=weights.nbytes(*table) + embedding + positions + _WIDE * shape.fixed_wide,
        layer_bytes=sum(of_layers.nbytes(*each) for each in shape.matrices) + _WIDE * shape.layer_wide,
        kv_bytes_per_token_layer=2 * kept.nbytes(shape.kv_heads, shape.head_dim),
        activation_bytes_per_token=0,
        row_bytes=_LOGIT * shape.vocab_size,
        step_tokens=1,
        page_tokens=page_tokens,
    )
