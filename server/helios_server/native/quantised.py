"""Weights in few bits: made once, here, of floats; packed by the kernels, multiplied by torch.

Used by `library.py`, which packs them, and by the models where torch computes. Both multiply the same
numbers. A checkpoint that holds such weights gives them as they stand. It must not choose a format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from helios_server.errors import HeliosError

QUANTISED: Final = ("int8", "int4")
GROUP: Final = 32
"""Weights of a row that share a unit and a minimum in int4."""
_BLOCK = 1 << 20
_BLOCK_OF_ACCELERATOR = 1 << 24
"""Elements that are widened at a time: what is held beside a matrix stays small. An accelerator wants few and
large operations."""
_LEAST_UNIT = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Quantised:
    """A matrix of [out_features, in_features].

    int8: a weight is value * unit; values: [out, in] int8, units: [out, 1] float32, minima: None.
    int4: a weight is value * unit + minimum, a float32, of its group; values: [out, groups, 16] uint8, of the
    group's weights k and k + 16 the low and the high half of a byte; units, minima: [out, groups] float16.
    """

    dtype: str
    in_features: int
    values: Tensor
    units: Tensor
    minima: Tensor | None = None

    @property
    def out_features(self) -> int:
        """Rows."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """[out_features, in_features]."""
        return self.out_features, self.in_features

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.numel() * part.element_size() for part in self._parts())

    def to(self, device: torch.device) -> Quantised:
        """On a device."""
        return self._of([part.to(device) for part in self._parts()])

    def rows(self, chosen: Tensor | slice) -> Quantised:
        """Some of its rows."""
        return self._of([part[chosen] for part in self._parts()])

    def blocks(self) -> Iterator[slice]:
        """All its rows, so many together that widening them takes at most `widening_bytes`."""
        return _row_blocks(*self.shape, _block(self.values.device))

    def wide(self, dtype: torch.dtype) -> Tensor:
        """[out, in] in a float dtype: exact in float64, else rounded once to float32, and then to it."""
        exact = torch.promote_types(dtype, torch.float32)
        if self.minima is None:
            return (self.values.to(exact) * self.units.to(exact)).to(dtype)
        halves = torch.cat((self.values & 15, self.values >> 4), dim=-1).to(exact)
        wide = halves * self.units[..., None].to(exact) + self.minima[..., None].to(exact)
        return wide.flatten(1)[:, : self.in_features].to(dtype)

    @classmethod
    def joined(cls, parts: Sequence[Quantised]) -> Quantised:
        """One matrix of the rows of all, which have one format and one in_features."""
        first = parts[0]
        if len(parts) == 1:
            return first
        columns = zip(*(part._parts() for part in parts), strict=True)
        return first._of([torch.cat(column) for column in columns])

    def _parts(self) -> list[Tensor]:
        return [self.values, self.units] + ([] if self.minima is None else [self.minima])

    def _of(self, parts: Sequence[Tensor]) -> Quantised:
        return Quantised(self.dtype, self.in_features, *parts)


def quantise(weight: Tensor, dtype: str) -> Quantised:
    """Quantises weight: [out, in], floats. Raises HeliosError, weight_dtype, where the format cannot hold
    it."""
    if dtype not in QUANTISED:
        raise HeliosError(
            "weight_dtype", f"'{dtype}' is not supported", f"Use auto, {' or '.join(QUANTISED)}"
        )
    quantise_block = _int8 if dtype == "int8" else _int4
    out_features, in_features = weight.shape
    blocks = _row_blocks(out_features, in_features, _BLOCK)
    return Quantised.joined([quantise_block(weight[rows].float()) for rows in blocks])


def floats(weight: Tensor | Quantised) -> Tensor:
    """A matrix as floats: [out, in], as stored or float32."""
    return weight.wide(torch.float32) if isinstance(weight, Quantised) else weight


def joined(parts: Sequence[Tensor | Quantised]) -> Tensor | Quantised:
    """One matrix out of the rows of several."""
    first, *others = parts
    if not others:
        return first
    quantised = [part for part in parts if isinstance(part, Quantised)]
    if len(quantised) == len(parts) and len({part.dtype for part in quantised}) == 1:
        return Quantised.joined(quantised)
    return torch.cat([floats(part) for part in parts])


def widening_bytes(device: torch.device, dtype: torch.dtype) -> int:
    """Bytes of temporaries while a block of rows becomes floats of a dtype: values, product and sum, in
    float32 or wider, the block itself, and the values' own bytes."""
    exact = torch.promote_types(dtype, torch.float32)
    return _block(device) * (3 * exact.itemsize + dtype.itemsize + 1)


def _block(device: torch.device) -> int:
    return _BLOCK if device.type == "cpu" else _BLOCK_OF_ACCELERATOR


def _row_blocks(rows: int, size: int, elements: int) -> Iterator[slice]:
    step = max(1, elements // size)
    return (slice(first, min(first + step, rows)) for first in range(0, max(rows, 1), step))


def _int8(weight: Tensor) -> Quantised:
    """Symmetric: the largest weight of a row is 127 units."""
    units = weight.abs().amax(1, keepdim=True) / 127
    if not units.isfinite().all():
        raise _unheld("int8", "a weight that is not finite")
    units = torch.where(units < _LEAST_UNIT, 0, units)
    return Quantised("int8", weight.shape[1], _in_units(weight, units).to(torch.int8), units)


def _int4(weight: Tensor) -> Quantised:
    """From the least to the largest weight of a group are 15 units."""
    out_features, in_features = weight.shape
    groups = -(-in_features // GROUP)
    filled = torch.nn.functional.pad(weight, (0, groups * GROUP - in_features))
    if groups * GROUP > in_features:  # by what changes neither the least nor the largest
        filled[:, in_features:] = weight[:, -1:]
    filled = filled.view(out_features, groups, GROUP)
    least, largest = filled.amin(-1), filled.amax(-1)
    minima, units = least.half(), ((largest - least) / 15).half()
    if not (minima.isfinite() & units.isfinite() & largest.isfinite()).all():
        raise _unheld("int4", f"a weight of {float(weight.abs().max()):g}")
    wide_units = units.float()[..., None]
    values = _in_units(filled - minima.float()[..., None], wide_units).clamp_(0, 15).to(torch.uint8)
    low, high = values.chunk(2, dim=-1)
    return Quantised("int4", in_features, low | high << 4, units, minima)


def _in_units(weight: Tensor, units: Tensor) -> Tensor:
    """Where there is no unit, a value counts for nothing."""
    return (weight / torch.where(units > 0, units, 1)).round_()


def _unheld(dtype: str, what: str) -> HeliosError:
    return HeliosError("weight_dtype", f"{dtype} cannot hold {what}", "Use weight_dtype auto, dtype bfloat16")
