"""The one place where a matrix kernel is chosen, fixed per device and dtype when a model is loaded.

Called by the decoder block, the backbone and the exit heads. It must never choose by batch size: a row's
result may not depend on the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.errors import UnsupportedModelError

_TORCH_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# fbgemm packs a matrix into blocks of this many input and output elements and fills the last block with
# zeros.
_PACK_IN, _PACK_OUT, _PACK_TAIL_BYTES = 512, 64, 1024


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a model computes. dtype: its name; weights: stored dtype; activations: dtype of the residual
    stream; keys_and_values: as they are stored."""

    device: torch.device
    dtype: str
    weights: torch.dtype
    activations: torch.dtype
    keys_and_values: torch.dtype

    @classmethod
    def of(cls, device: str | torch.device = "cpu", dtype: str | None = None) -> Numerics:
        """Resolves a device and a dtype name (None: float16 on the CPU, bfloat16 on an accelerator)."""
        device = _usable(device)
        name = dtype or ("float16" if device.type == "cpu" else "bfloat16")
        if name not in _TORCH_DTYPES:
            raise UnsupportedModelError(
                "dtype", f"'{name}' is not supported", f"Use one of {', '.join(_TORCH_DTYPES)}"
            )
        weights = _TORCH_DTYPES[name]
        packed = device.type == "cpu" and name == "float16"
        if packed and "fbgemm" not in torch.backends.quantized.supported_engines:
            raise UnsupportedModelError(
                "dtype",
                "float16 weights need fbgemm, which this processor's torch lacks",
                "Use dtype float32",
            )
        activations = torch.float32 if packed else weights
        return cls(device, name, weights, activations, activations)

    @property
    def packed(self) -> bool:
        """Whether matrices are packed fp16 weights that multiply float32 activations."""
        return self.activations != self.weights

    def weight(self, tensor: Tensor) -> Tensor:
        """Puts a tensor on the device in the dtype of the activations (norms, biases)."""
        return tensor.to(self.device, self.activations)


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
    """y = x W^T + b. weight: [out, in], bias: [out] or None; x: [rows, in] in the activation dtype."""

    __slots__ = ("_bias", "_packed", "in_features", "nbytes", "out_features", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None, numerics: Numerics) -> None:
        self.out_features, self.in_features = weight.shape
        self.weight: Tensor | None = None
        self._bias = None
        self._packed = None
        if numerics.packed:
            # Measured: bitwise the same result for every batch size; F.linear in float32 or bfloat16 is not.
            wide_bias = None if bias is None else bias.float()
            self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), wide_bias)
            self.nbytes = packed_bytes(self.out_features, self.in_features) + 4 * self._bias_len(bias)
        else:
            self.weight = weight.to(numerics.device, numerics.weights).contiguous()
            self._bias = None if bias is None else numerics.weight(bias)
            self.nbytes = self.weight.element_size() * (self.weight.numel() + self._bias_len(bias))

    @staticmethod
    def _bias_len(bias: Tensor | None) -> int:
        return 0 if bias is None else bias.numel()

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
            return product
        return F.linear(x, self.weight, self._bias)  # type: ignore[arg-type]


def packed_bytes(out_features: int, in_features: int) -> int:
    """Bytes that fbgemm allocates for a packed fp16 matrix, the zeros of its last blocks included."""
    blocks_in = -(-in_features // _PACK_IN)
    blocks_out = -(-out_features // _PACK_OUT)
    return 2 * blocks_in * _PACK_IN * blocks_out * _PACK_OUT + _PACK_TAIL_BYTES
