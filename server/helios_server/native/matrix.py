"""A matrix packed for the kernels. Made by `Library.pack`; held by whoever multiplies with it."""

from __future__ import annotations

import ctypes
import weakref
from typing import Final

import torch
from torch import Tensor

FORMATS: Final = ("float16", "bfloat16", "int8", "int4")


class Matrix:
    """Weights of [out_features, in_features] and their bias, in one format, as one instruction set reads
    them.

    gated: the rows are [gate; up], and a product is silu(gate) * up, of half as many columns. nbytes:
    resident bytes, with what fills up the last panel.
    """

    __slots__ = (
        "__weakref__", "_functions", "columns", "fmt", "gated", "in_features", "nbytes", "out_features",
        "pointer",
    )  # fmt: skip

    def __init__(
        self, functions: ctypes.CDLL, pointer: int, out_features: int, in_features: int, fmt: str, gated: bool
    ) -> None:
        self._functions = functions
        self.pointer = pointer
        self.out_features = out_features
        self.in_features = in_features
        self.fmt = fmt
        self.gated = gated
        self.columns = out_features // 2 if gated else out_features
        self.nbytes: int = functions.helios_nbytes(pointer)
        weakref.finalize(self, functions.helios_free, pointer).atexit = False

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weights as packed: [T, in_features] float32. ids: [T] int64, each < out_features."""
        if ids.dtype != torch.int64 or not ids.is_contiguous():
            ids = ids.to(torch.int64).contiguous()
        out = torch.empty(len(ids), self.in_features)
        if self._functions.helios_rows(self.pointer, ids.data_ptr(), len(ids), out.data_ptr()):
            raise IndexError(f"ids: one is outside 0..{self.out_features - 1}")
        return out
