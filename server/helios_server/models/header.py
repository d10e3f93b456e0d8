"""Where the tensors of one safetensors file lie, by its header, which is believed in nothing.

Called by `checkpoint.py` and by whoever reads a bundle of exit heads. It reads the header only. Every tensor
must lie within the file, take the bytes that its shape and dtype need, and share them with no other.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch

from helios_server.errors import CheckpointError
from helios_server.models.json_file import parse_object, shown

COPY_AGAIN = "Copy the file again, complete"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I8": torch.int8, "I32": torch.int32, "I64": torch.int64}  # of quantised weights
_OTHER_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_BITS = _OTHER_BITS | {name: 8 * dtype.itemsize for name, dtype in FLOATS.items()}
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # bytes, as the format has it


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies. dtype: safetensors' name; shape: elements per axis; start, nbytes: bytes, start
    counted from the file's beginning."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def rows(self, count: int, first: int = 0) -> TensorEntry:
        """So many rows of it, from the first on."""
        size = self.nbytes // self.shape[0]
        start = self.start + first * size
        return TensorEntry(self.file, self.dtype, (count, *self.shape[1:]), start, count * size)


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by name. Raises CheckpointError, whose field is the file."""
    if not file.is_file():
        raise CheckpointError(str(file), "file is missing", "Copy the model again, complete")
    try:
        size = file.stat().st_size
        header, base = _read(file, size)
        entries = {
            name: _entry(file, name, item, base) for name, item in header.items() if name != "__metadata__"
        }
        _check_places(entries, base, size)
    except (OSError, ValueError) as error:
        problem = f"is not a readable safetensors file ({error})"
        raise CheckpointError(str(file), problem, COPY_AGAIN) from error
    return entries


def _read(file: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header's content, and where the tensors' bytes begin."""
    with file.open("rb") as handle:
        begin = handle.read(_LENGTH_BYTES)
        if len(begin) < _LENGTH_BYTES:
            raise ValueError(f"expected a header, found {size} bytes")
        [length] = struct.unpack("<Q", begin)
        if length > min(size - _LENGTH_BYTES, _LONGEST_HEADER):
            raise ValueError(f"its header claims {length} bytes, the file has {size}")
        return parse_object(handle.read(length), unique=True), _LENGTH_BYTES + length


def _entry(file: Path, name: str, item: Any, base: int) -> TensorEntry:
    if not isinstance(item, dict):
        raise ValueError(f"tensor '{name}' is {shown(item)}, expected an object")
    dtype, shape, offsets = item.get("dtype"), item.get("shape"), item.get("data_offsets")
    if not isinstance(dtype, str):
        raise ValueError(f"dtype of tensor '{name}' is {shown(dtype)}, expected a name such as F16")
    if not _sizes(shape):
        raise ValueError(f"shape of tensor '{name}' is {shown(shape)}, expected a list of sizes")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"data_offsets of tensor '{name}' are {shown(offsets)}, expected a begin and an end")
    nbytes = offsets[1] - offsets[0]
    if dtype in _BITS and math.prod(shape) * _BITS[dtype] != nbytes * 8:
        need = f"{dtype} {shown(shape)} takes {math.prod(shape) * _BITS[dtype] // 8}"
        raise ValueError(f"tensor '{name}' has {nbytes} bytes, {need}")
    return TensorEntry(file, dtype, tuple(shape), base + offsets[0], nbytes)


def _sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_places(entries: dict[str, TensorEntry], base: int, size: int) -> None:
    """The tensors follow each other up to the end of the file."""
    end, before = base, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start < end:
            raise ValueError(f"tensors '{before}' and '{name}' overlap")
        if entry.start > end:
            raise ValueError(f"{entry.start - end} bytes before tensor '{name}' belong to none")
        end, before = entry.start + entry.nbytes, name
    if end > size:
        raise ValueError(f"it is truncated at {size} bytes, its tensors end at {end}")
    if end < size:
        raise ValueError(f"{size - end} bytes at its end belong to no tensor")
