"""The norms of all families with the casts of transformers: RMS norms are computed in float32 and cast back.

Used by block, backbone and exit heads. A norm treats each row alone.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.models.families import NormKind

_LEAST_WEIGHT = 1e-4  # of an element that can be divided by


class Norm(Protocol):
    """What every kind offers. x: [..., size], activation dtype. weight: [size], what a normed row is
    multiplied by; eps: what is added to the variance; nbytes: resident."""

    weight: Tensor
    eps: float

    @property
    def nbytes(self) -> int: ...

    def __call__(self, x: Tensor) -> Tensor: ...

    def wide(self) -> Norm:
        """The same in float32."""
        ...

    def unscaled(self, y: Tensor) -> Tensor:
        """What became y: [..., size] by weight and bias; elements of hardly any weight are not divided."""
        ...


class RmsNorm:
    """weight: [size], activation dtype; applied after the cast back."""

    __slots__ = ("eps", "weight")

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight * _rms_normed(x, self.eps).to(x.dtype)

    def wide(self) -> RmsNorm:
        return RmsNorm(self.weight.float(), self.eps)

    def unscaled(self, y: Tensor) -> Tensor:
        return y / _divisor(self.weight)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return _bytes(self.weight)


class OffsetRmsNorm:
    """Gemma's: the stored weight, [size], is added to one; applied in float32, before the cast back."""

    __slots__ = ("eps", "weight")

    def __init__(self, stored: Tensor, eps: float) -> None:
        self.weight = 1.0 + stored.float()
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return (_rms_normed(x, self.eps) * self.weight).to(x.dtype)

    def wide(self) -> OffsetRmsNorm:
        return self

    def unscaled(self, y: Tensor) -> Tensor:
        return y / _divisor(self.weight)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return _bytes(self.weight)


class LayerNorm:
    """OPT's: without the mean, then scaled and shifted. weight, bias: [size], activation dtype."""

    __slots__ = ("_bias", "eps", "weight")

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self._bias, self.eps)

    def wide(self) -> LayerNorm:
        return LayerNorm(self.weight.float(), self._bias.float(), self.eps)

    def unscaled(self, y: Tensor) -> Tensor:
        return (y - self._bias) / _divisor(self.weight)

    @property
    def nbytes(self) -> int:
        """Resident bytes."""
        return _bytes(self.weight) + _bytes(self._bias)


def make_norm(kind: NormKind, weight: Tensor, bias: Tensor | None, eps: float) -> Norm:
    """A norm of a checkpoint's tensors; a bias has the kind `layer`, and only that."""
    if bias is not None:
        return LayerNorm(weight, bias, eps)
    return OffsetRmsNorm(weight, eps) if kind == "rms_offset" else RmsNorm(weight, eps)


def _rms_normed(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    variance = wide.pow(2).mean(-1, keepdim=True)
    return wide * torch.rsqrt(variance + eps)


def _divisor(weight: Tensor) -> Tensor:
    return torch.where(weight.abs() < _LEAST_WEIGHT, 1.0, weight)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
