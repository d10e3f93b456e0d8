"""`kernels/helios_native.h` as ctypes sees it, line by line. Used by this package alone."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Final

ISAS: Final = (
    "avx2",
    "avx512",
    "avx512_bf16",
    "amx",
)  # a number of HeliosIsa each, from the least to the best
MULTIPLY_BFLOAT16: Final = ("avx512_bf16", "amx")  # of ISAS: in pairs, in tiles; others widen it first
TYPES: Final = ("float32", "float16", "bfloat16", "int8", "int4")  # of HeliosType


class CShape(Structure):
    """HeliosShape."""

    _fields_ = (
        ("hidden", c_int32), ("heads", c_int32), ("kv_heads", c_int32), ("head_dim", c_int32),
        ("inner", c_int32), ("page_tokens", c_int32), ("kv_type", c_int32), ("eps", c_float),
        ("scale", c_float),
    )  # fmt: skip


class CLayer(Structure):
    """HeliosLayer."""

    _fields_ = (
        ("input_norm", c_void_p), ("post_norm", c_void_p), ("q_norm", c_void_p), ("k_norm", c_void_p),
        ("qkv", c_void_p), ("o", c_void_p), ("gate_up", c_void_p), ("down", c_void_p),
    )  # fmt: skip


class CStep(Structure):
    """HeliosStep."""

    _fields_ = (
        ("tokens", c_int64), ("positions", c_void_p), ("slots", c_void_p), ("table_rows", c_void_p),
        ("contexts", c_void_p), ("pages", c_void_p), ("page_rows", c_int64), ("page_width", c_int64),
        ("cos", c_void_p), ("sin", c_void_p), ("rope_rows", c_int64),
    )  # fmt: skip


_SIGNATURES: dict[str, tuple[type[Any] | None, tuple[Any, ...]]] = {
    "helios_supports": (c_int, (c_int,)),
    "helios_pays": (c_int, (c_int,)),
    "helios_built": (c_int, (c_int,)),
    "helios_pack": (
        c_int,
        (
            c_int, c_void_p, c_int, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int, c_int, c_int,
            POINTER(c_void_p),
        ),
    ),
    "helios_free": (None, (c_void_p,)),
    "helios_nbytes": (c_int64, (c_void_p,)),
    "helios_rows": (c_int, (c_void_p, c_void_p, c_int64, c_void_p)),
    "helios_matmul": (c_int, (c_int, c_void_p, c_void_p, c_int64, c_void_p, c_int)),
    "helios_run_layers": (
        c_int,
        (
            c_int, POINTER(CShape), POINTER(c_void_p), POINTER(c_void_p), c_int64, c_int64, c_void_p,
            POINTER(CStep), c_int,
        ),
    ),
    "helios_scratch": (c_int64, (c_int, POINTER(CShape), c_int64, c_int)),
    "helios_rms_norm": (c_int, (c_int, c_void_p, c_void_p, c_float, c_int64, c_int64, c_void_p)),
    "helios_choose": (
        c_int,
        (c_int, c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p, c_int),
    ),
    "helios_loud": (c_int64, (c_int, c_uint64, c_int64, c_uint64, c_void_p, c_void_p, c_int64)),
}  # fmt: skip
_QUICK: Final = ("helios_rows", "helios_rms_norm")
"""Over before another thread has begun: they keep the interpreter's lock, or who waits for it gets it in the
middle of a step's preparation."""


def load(file: Path) -> ctypes.CDLL:
    """The library with the types of its functions. Raises OSError where it cannot be loaded.

    torch is to be imported before: it brings the OpenMP runtime, whose threads the kernels then share.
    """
    library = ctypes.CDLL(str(file))
    locked = ctypes.PyDLL(str(file), handle=library._handle)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(locked if name in _QUICK else library, name)
        function.restype, function.argtypes = result, arguments
        setattr(library, name, function)
    return library
