"""The kernels that this process uses, loaded once: `library()`, or None where everything runs on torch.

Called by the models (packing) and the engine (a segment of layers, the choice). Which instruction set serves
is decided here: the best that the processor has and that passes `selfcheck.py`, or the one that HELIOS_NATIVE
names. It must not compile anything.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Sequence
from ctypes import byref, c_bool, c_float, c_int64, c_void_p
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from helios_server.errors import HeliosError
from helios_server.native import interface
from helios_server.native.build import library_file, why_not_here
from helios_server.native.interface import ISAS, TYPES
from helios_server.native.layers import FLOATS, Layer, Shape, Step, check_tensor
from helios_server.native.matrix import FORMATS, Matrix
from helios_server.native.quantised import QUANTISED, Quantised, floats, quantise
from helios_server.native.selfcheck import difference

logger = logging.getLogger(__name__)

VARIABLE = "HELIOS_NATIVE"
_FIX = f"Set {VARIABLE} to off, {', '.join(ISAS)}, or leave it out"
_REBUILD = "build them with a newer compiler"
_STATUS = {
    1: "there is no memory for it",
    2: "its sizes do not fit together",
    3: "its type is not one that there are kernels for",
    6: "a position is beyond the rotary table",
    7: "a slot, page, context or table row is outside the slabs or the page table",
}


class Choice(NamedTuple):
    """Of each of N rows of logits. best: place of the first of the highest; highest: float32; total: the sum
    of exp(x - highest), float32; finite: whether all are, without which the others mean nothing."""

    best: list[int]
    highest: list[float]
    total: list[float]
    finite: list[bool]


class Library:
    """The kernels of one instruction set.

    threads: that work on a call; None: as many as torch's at that time. Results do not depend on it.
    """

    def __init__(self, functions: ctypes.CDLL, isa: str, threads: int | None = None) -> None:
        self.functions = functions
        self._isa = ISAS.index(isa)
        self.isa = isa
        self.threads = threads

    @classmethod
    def for_isa(cls, isa: str, file: Path | None = None, threads: int | None = None) -> Library:
        """The kernels of this instruction set, unchecked. file: another build than the package's.

        Raises HeliosError where they cannot be had.
        """
        functions = _load(file or library_file())
        if isa not in ISAS or not functions.helios_supports(ISAS.index(isa)):
            raise HeliosError(VARIABLE, f"this machine lacks '{isa}'", _FIX)
        if not functions.helios_built(ISAS.index(isa)):
            raise HeliosError(VARIABLE, f"the kernels are built without '{isa}'", _REBUILD)
        return cls(functions, isa, threads)

    def pack(
        self, weight: Tensor | Quantised, bias: Tensor | None, fmt: str, *, gated: bool = False
    ) -> Matrix:
        """Packs weight: [out, in] and bias: [out] in a format, one of FORMATS.

        gated: the rows are [gate; up]. Raises HeliosError where a weight is beyond what the format holds.
        """
        if fmt not in FORMATS:
            raise HeliosError(
                "dtype", f"there are no kernels for '{fmt}'", f"Use one of {', '.join(FORMATS)}"
            )
        given = _as_packed(weight, fmt)
        offsets = None if bias is None else bias.float().contiguous()
        out_features, in_features = weight.shape
        pointer = c_void_p()
        status = self.functions.helios_pack(
            self._isa, _address(given.values), TYPES.index(given.type), out_features, in_features,
            _address(given.units), _address(given.minima), _address(offsets), TYPES.index(fmt), gated,
            self._threads(), byref(pointer),
        )  # fmt: skip
        if status == 4 and isinstance(weight, Tensor):
            largest = float(weight.abs().max())
            raise HeliosError("dtype", f"float16 cannot hold a weight of {largest:g}", "Use dtype bfloat16")
        _raise(status, "weight")
        return Matrix(self.functions, pointer.value or 0, out_features, in_features, fmt, gated)

    def matmul(self, matrix: Matrix, x: Tensor, out: Tensor | None = None) -> Tensor:
        """x W^T + bias; of a gated matrix silu(gate) * up. x: [M, in_features] float32. Returns [M, columns]
        float32; out: where that goes, None: a new tensor."""
        rows = len(x)
        check_tensor("x", x, torch.float32, (rows, matrix.in_features))
        if out is None:
            out = torch.empty(rows, matrix.columns)
        else:
            check_tensor("out", out, torch.float32, (rows, matrix.columns))
        status = self.functions.helios_matmul(
            self._isa, matrix.pointer, x.data_ptr(), rows, out.data_ptr(), self._threads()
        )
        _raise(status, "matrix")
        return out

    def run_layers(
        self, shape: Shape, layers: Sequence[Layer], hidden: Tensor, step: Step, slabs: Sequence[Tensor]
    ) -> None:
        """Runs layers over hidden: [T, hidden] float32, in place, and writes keys and values of the T tokens.

        slabs: one a layer, each `shape.slab(pages)` of `shape.kv`.
        """
        tokens = step.check(shape)
        check_tensor("hidden", hidden, torch.float32, (tokens, shape.hidden))
        if len(slabs) != len(layers):
            raise ValueError(f"slabs: there are {len(slabs)} for {len(layers)} layers")
        lengths = [slab.shape[0] for slab in slabs]
        pages = min(lengths, default=0)
        alike = shape.slab(pages)
        for slab, length in zip(slabs, lengths, strict=True):
            check_tensor("slabs", slab, shape.kv, alike if length == pages else shape.slab(length))
        count = len(layers)
        status = self.functions.helios_run_layers(
            self._isa,
            byref(shape.c),
            (c_void_p * count)(*[layer.address for layer in layers]),
            (c_void_p * count)(*[slab.data_ptr() for slab in slabs]),
            pages,
            count,
            hidden.data_ptr(),
            byref(step.c),
            self._threads(),
        )
        _raise(status, "step")

    def scratch_bytes(self, shape: Shape, tokens: int) -> int:
        """Bytes that a thread keeps once it has run layers of this shape over so many tokens."""
        scratch: int = self.functions.helios_scratch(self._isa, byref(shape.c), tokens, self._threads())
        return scratch

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight, as inside the layers. x: [M, size] float32; weight: [size] float32."""
        rows, size = x.shape
        check_tensor("x", x, torch.float32, (rows, size))
        check_tensor("weight", weight, torch.float32, (size,))
        out = torch.empty(rows, size)
        status = self.functions.helios_rms_norm(
            self._isa, x.data_ptr(), weight.data_ptr(), eps, rows, size, out.data_ptr()
        )
        _raise(status, "x")
        return out

    def choose(self, logits: Tensor) -> Choice:
        """What a token is chosen by. logits: [N, vocab] float32."""
        rows, vocabulary = logits.shape
        check_tensor("logits", logits, torch.float32, (rows, vocabulary))
        best, highest = (c_int64 * rows)(), (c_float * rows)()
        total, finite = (c_float * rows)(), (c_bool * rows)()
        status = self.functions.helios_choose(
            self._isa, logits.data_ptr(), rows, vocabulary, best, highest, total, finite, self._threads()
        )
        _raise(status, "logits")
        return Choice(best[:], highest[:], total[:], finite[:])

    def loud(
        self, key: int, count: int, least: int, room: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]] | None:
        """Ids below `count`, ascending, whose hash (`engine/noise.py`) under `key` is `least` or more, and
        those hashes; None where there are more than `room`."""
        ids, bits = np.empty(room, np.int64), np.empty(room, np.uint64)
        found = self.functions.helios_loud(
            self._isa, key, count, least, ids.ctypes.data, bits.ctypes.data, room
        )
        return (ids[:found], bits[:found]) if 0 <= found <= room else None

    def _threads(self) -> int:
        return self.threads or torch.get_num_threads()


class _Given(NamedTuple):
    """What `helios_pack` reads. values: [out, in], of the type; units, minima: where they are quantised."""

    type: str
    values: Tensor
    units: Tensor | None = None
    minima: Tensor | None = None


def _as_packed(weight: Tensor | Quantised, fmt: str) -> _Given:
    if fmt in QUANTISED:
        held = (
            weight if isinstance(weight, Quantised) and weight.dtype == fmt else quantise(floats(weight), fmt)
        )
        minima = None if held.minima is None else held.minima.contiguous()
        return _Given(fmt, held.values.contiguous(), held.units.contiguous(), minima)
    as_stored = floats(weight)
    known = as_stored if as_stored.dtype in FLOATS else as_stored.float()
    return _Given(FLOATS[known.dtype], known.contiguous())


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _raise(status: int, field: str) -> None:
    if status == 1:
        raise MemoryError(f"{field}: {_STATUS[1]}")
    if status:
        raise ValueError(f"{field}: {_STATUS.get(status, f'the kernels answered {status}')}")


@functools.cache
def library() -> Library | None:
    """The kernels of this process; None: everything runs on torch, and a log line says why.

    Raises HeliosError where HELIOS_NATIVE names what is not there.
    """
    return choose_library(os.environ.get(VARIABLE, ""), library_file())


def choose_library(chosen: str, file: Path) -> Library | None:
    """What `library` answers to this word of HELIOS_NATIVE ("": the best there is) and this build."""
    if chosen and chosen not in ("off", *ISAS):
        raise HeliosError(VARIABLE, f"'{chosen}' is not an instruction set that there are kernels for", _FIX)
    if chosen == "off":
        return _none(f"{VARIABLE} is off")
    if chosen:
        return _pinned(chosen, file)
    if reason := why_not_here():
        return _none(reason)
    try:
        functions = _load(file)
    except HeliosError as error:
        return _none(f"{error.problem}: {error.fix}")
    return _best(functions)


def _pinned(isa: str, file: Path) -> Library:
    kernels = Library.for_isa(isa, file)
    if wrong := _difference(kernels):
        raise HeliosError(VARIABLE, f"'{isa}' computes {wrong} wrongly on this machine", _FIX)
    return kernels


def _best(functions: ctypes.CDLL) -> Library | None:
    supported = [isa for index, isa in enumerate(ISAS) if functions.helios_supports(index)]
    for isa in reversed(supported):
        if not functions.helios_pays(ISAS.index(isa)):
            continue
        if not functions.helios_built(ISAS.index(isa)):
            logger.info("the kernels are built without '%s', which this processor has: %s", isa, _REBUILD)
            continue
        kernels = Library(functions, isa)
        wrong = _difference(kernels)
        if wrong is None:
            return kernels
        logger.warning("the %s kernels compute %s wrongly on this machine and are not used", isa, wrong)
    return _none("none are right" if supported else "this processor lacks AVX2, FMA or F16C")


def _difference(kernels: Library) -> str | None:
    return difference(Library(kernels.functions, kernels.isa, threads=1))  # too little for more of them


def _none(reason: str) -> Library | None:
    logger.info("no native kernels, all layers run on torch: %s", reason)
    return None


def _load(file: Path) -> ctypes.CDLL:
    if not file.exists():
        fix = "run python -m helios_server.native.build, which needs a C++ compiler"
        raise HeliosError(VARIABLE, "the kernels are not built", fix)
    try:
        return interface.load(file)
    except OSError as error:
        raise HeliosError(VARIABLE, f"the kernels cannot be loaded ({error})", "build them again") from error
