"""The one place where a matrix kernel is chosen, fixed per device and dtype when a model is loaded.

Called by the decoder block, the backbone and the exit heads. It must never choose by batch size: a row's
result may not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from helios_contract.serves import AUTO, KV_CACHE_DTYPES, REFERENCE, WEIGHT_DTYPES, Precision
from torch import Tensor

from helios_server.errors import UnsupportedModelError
from helios_server.native.interface import MULTIPLY_BFLOAT16
from helios_server.native.library import Library, library
from helios_server.native.matrix import Matrix
from helios_server.native.quantised import Quantised, floats, quantise

_TORCH_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NATIVE = ("bfloat16", "float16")
_KV_DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
# fbgemm packs a matrix into blocks of this many input and output elements and fills the last block with
# zeros.
_PACK_IN, _PACK_OUT, _PACK_TAIL_BYTES = 512, 64, 1024


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a model computes. dtype: its name, of all that the precision does not say otherwise of; weights:
    dtype of tables and of matrices that are not quantised; activations: dtype of the residual stream;
    keys_and_values: as they are stored; library: the native kernels, None where torch computes."""

    device: torch.device
    dtype: str
    weights: torch.dtype
    activations: torch.dtype
    keys_and_values: torch.dtype
    library: Library | None = None
    precision: Precision = REFERENCE

    @classmethod
    def of(
        cls,
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        precision: Precision = REFERENCE,
        *,
        native: bool = True,
    ) -> Numerics:
        """Resolves a device and a dtype name (None or "auto": the device's own). native: whether the native
        kernels may compute, where they are there and know the format.

        Raises UnsupportedModelError: device, dtype, weight_dtype or kv_cache_dtype.
        """
        device = _usable(device)
        _check_precision(precision, device)
        name = default_dtype(device.type) if dtype in (None, AUTO) else str(dtype)
        if name not in _TORCH_DTYPES:
            raise UnsupportedModelError(
                "dtype", f"'{name}' is not supported", f"Use one of {', '.join((AUTO, *_TORCH_DTYPES))}"
            )
        weights = _TORCH_DTYPES[name]
        kernels = library() if native and device.type == "cpu" and name in _NATIVE else None
        stored = _KV_DTYPES.get(precision.kv_cache_dtype)
        if kernels is not None:
            return cls(device, name, weights, torch.float32, stored or weights, kernels, precision)
        packed = device.type == "cpu" and name == "float16"
        if packed and "fbgemm" not in torch.backends.quantized.supported_engines:
            raise UnsupportedModelError(
                "dtype",
                "float16 weights need fbgemm, which this processor's torch lacks",
                "Use dtype float32",
            )
        activations = torch.float32 if packed else weights
        return cls(device, name, weights, activations, stored or activations, None, precision)

    @property
    def packed(self) -> bool:
        """Whether matrices are fbgemm's packed fp16 weights, which multiply float32 activations."""
        return self.library is None and self.activations != self.weights

    @property
    def of_floats(self) -> Numerics:
        """The same for what keeps its floats whatever the precision: exit heads."""
        return replace(self, precision=replace(self.precision, weight_dtype=AUTO))

    def held(self, weight: Tensor | Quantised) -> Tensor | Quantised:
        """A matrix in the format that the precision says; auto: as it is."""
        wanted = self.precision.weight_dtype
        if wanted == AUTO or (isinstance(weight, Quantised) and weight.dtype == wanted):
            return weight
        return quantise(floats(weight), wanted)

    def pack(self, weight: Tensor | Quantised, bias: Tensor | None, *, gated: bool = False) -> Matrix:
        """For the native kernels. weight: [out, in], bias: [out] or None; gated: the rows are [gate; up]."""
        if self.library is None:
            raise ValueError("torch computes here, nothing is packed for the native kernels")
        held = self.held(weight)
        return self.library.pack(
            held, bias, held.dtype if isinstance(held, Quantised) else self.dtype, gated=gated
        )

    def weight(self, tensor: Tensor) -> Tensor:
        """Puts a tensor on the device in the dtype of the activations (norms, biases)."""
        return tensor.to(self.device, self.activations)


def default_dtype(device_type: str) -> str:
    """The format that `auto` names on a device, for the life of the process: bfloat16 where a processor or an
    accelerator multiplies it natively, float16 elsewhere."""
    if device_type != "cpu":
        return "bfloat16"
    kernels = library()
    return "bfloat16" if kernels is not None and kernels.isa in MULTIPLY_BFLOAT16 else "float16"


def _check_precision(precision: Precision, device: torch.device) -> None:
    weights, kv = precision.weight_dtype, precision.kv_cache_dtype
    if weights not in WEIGHT_DTYPES:
        raise UnsupportedModelError(
            "weight_dtype", f"'{weights}' is not supported", f"Use one of {', '.join(WEIGHT_DTYPES)}"
        )
    if kv not in KV_CACHE_DTYPES:
        raise UnsupportedModelError(
            "kv_cache_dtype", f"'{kv}' is not supported", f"Use one of {', '.join(KV_CACHE_DTYPES)}"
        )
    if kv == "fp8" and device.type != "cuda":
        raise UnsupportedModelError(
            "kv_cache_dtype", f"'fp8' needs a CUDA device, this is {device.type}", "Use int8, or auto"
        )


def _usable(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch raises the one or the other
        reason = str(error).splitlines()[0]
        raise UnsupportedModelError(
            "device", f"'{device}' cannot be used ({reason})", "Use cpu, or cuda with a GPU"
        ) from None
    return found


class Linear:
    """y = x W^T + b. weight: [out, in], bias: [out] or None; x: [rows, in] in the activation dtype.

    `weight` afterwards: as torch multiplies it; None where it is packed or quantised.
    """

    __slots__ = (
        "_activations", "_bias", "_matrix", "_multiply", "_quantised", "in_features", "nbytes",
        "out_features", "weight",
    )  # fmt: skip

    def __init__(self, weight: Tensor | Quantised, bias: Tensor | None, numerics: Numerics) -> None:
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._matrix: Matrix | None = None
        self._quantised: Quantised | None = None
        self._activations = numerics.activations
        self._multiply: Callable[..., Tensor]
        bias_elements = 0 if bias is None else bias.numel()
        if numerics.library is not None:
            self._matrix = numerics.pack(weight, bias)
            self._multiply = partial(numerics.library.matmul, self._matrix)
            self.nbytes = self._matrix.nbytes
            return
        weight = numerics.held(weight)
        if isinstance(weight, Quantised):
            self._quantised = weight.to(numerics.device)
            offsets = None if bias is None else numerics.weight(bias)
            self._multiply = partial(_multiply_quantised, self._quantised, offsets)
            self.nbytes = weight.nbytes + numerics.activations.itemsize * bias_elements
        elif numerics.packed:
            # Measured: bitwise the same result for every batch size; F.linear in float32 or bfloat16 is not.
            wide_bias = None if bias is None else bias.float()
            packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), wide_bias)
            self._multiply = partial(_multiply_packed, packed)
            self.nbytes = packed_bytes(self.out_features, self.in_features) + 4 * bias_elements
        else:
            self.weight = weight.to(numerics.device, numerics.weights).contiguous()
            self._bias = None if bias is None else numerics.weight(bias)
            self._multiply = partial(F.linear, weight=self.weight, bias=self._bias)
            self.nbytes = self.weight.element_size() * (self.weight.numel() + bias_elements)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """out: where y goes, which the native kernels alone can do; None: a new tensor."""
        return self._multiply(x) if out is None else self._multiply(x, out=out)

    def from_column(self, first: int, x: Tensor) -> Tensor:
        """The columns of y from `first` on, without the others where the weight is held as it was read."""
        if self.weight is None:
            return self(x)[:, first:]
        return F.linear(x, self.weight[first:], None if self._bias is None else self._bias[first:])

    @property
    def gives_rows(self) -> bool:
        """Whether rows of the weight can be read out of it, so that an embedding need not be held twice."""
        return any(held is not None for held in (self.weight, self._matrix, self._quantised))

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weight, as it multiplies. ids: [T] int64. Returns [T, in_features], any float dtype."""
        if self._matrix is not None:
            return self._matrix.rows(ids)
        if self._quantised is not None:
            return self._quantised.rows(ids).wide(self._activations)
        if self.weight is None:
            raise ValueError("no row can be read out of a matrix that fbgemm packed")
        return self.weight[ids]


class SwiGlu:
    """y = silu(x G^T) * (x U^T). gate, up: [out, in]; x: [rows, in] in the activation dtype."""

    def __init__(self, gate: Tensor, up: Tensor, numerics: Numerics) -> None:
        self._multiply: Callable[[Tensor], Tensor]
        both = torch.cat((gate, up))
        if numerics.library is not None:
            matrix = numerics.pack(both, None, gated=True)
            self._multiply, self.nbytes = partial(numerics.library.matmul, matrix), matrix.nbytes
        else:
            linear = Linear(both, None, numerics)
            self._multiply, self.nbytes = partial(_gated, linear), linear.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x)


def _gated(linear: Linear, x: Tensor) -> Tensor:
    gate, up = linear(x).chunk(2, dim=-1)
    return F.silu(gate) * up


def _multiply_quantised(held: Quantised, offsets: Tensor | None, x: Tensor) -> Tensor:
    """Weights become floats a block of rows at a time: at no time is the matrix there as floats."""
    products = [F.linear(x, held.rows(rows).wide(x.dtype)) for rows in held.blocks()]
    product = products[0] if len(products) == 1 else torch.cat(products, dim=-1)
    return product if offsets is None else product + offsets


def _multiply_packed(packed: object, x: Tensor) -> Tensor:
    product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return product


def packed_bytes(out_features: int, in_features: int) -> int:
    """Bytes that fbgemm allocates for a packed fp16 matrix, the zeros of its last blocks included."""
    blocks_in = -(-in_features // _PACK_IN)
    blocks_out = -(-out_features // _PACK_OUT)
    return 2 * blocks_in * _PACK_IN * blocks_out * _PACK_OUT + _PACK_TAIL_BYTES
