"""Exit heads: from the hidden state of an intermediate layer to what the backbone's shared LM head reads.

Called by the engine, the audit and the profiler through `HeadBundle.head`. Every kind ends in the model's
own final norm. A head must treat each row alone: no result may depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from helios_server.models.backbone import Backbone
from helios_server.models.linear import Linear, SwiGlu
from helios_server.models.norm import RmsNorm


class ExitHead(Protocol):
    """What every kind offers. nbytes: resident bytes that the head adds to the backbone's."""

    @property
    def kind(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    def apply(self, hidden: Tensor) -> Tensor:
        """hidden: [N, hidden_size], activation dtype. Returns the same shape, ready for `Backbone.logits`."""
        ...


class BareHead:
    """The model's own final norm: at full depth always, at an exit layer when there is no bundle."""

    kind = "bare"
    nbytes = 0

    def __init__(self, backbone: Backbone) -> None:
        self._final_norm = backbone.final_norm

    def apply(self, hidden: Tensor) -> Tensor:
        return self._final_norm(hidden)


class AffineHead:
    """RMS norm, an affine map, final norm. Tensors: norm [d], affine.weight [d, d], affine.bias [d]."""

    kind = "affine"

    def __init__(self, tensors: Mapping[str, Tensor], backbone: Backbone) -> None:
        numerics = backbone.numerics.of_floats
        self._norm = RmsNorm(numerics.weight(tensors["norm"]), backbone.config.norm_eps)
        self._affine = Linear(tensors["affine.weight"], tensors["affine.bias"], numerics)
        self._final_norm = backbone.final_norm
        self.nbytes = self._norm.nbytes + self._affine.nbytes

    def apply(self, hidden: Tensor) -> Tensor:
        return self._final_norm(self._affine(self._norm(hidden)))


class MlpHead:
    """RMS norm, then an affine map plus a SwiGLU of the same input, final norm.

    Tensors: norm [d], affine.weight [d, d], affine.bias [d], gate.weight and up.weight [2d, d], down.weight
    [d, 2d].
    """

    kind = "mlp"

    def __init__(self, tensors: Mapping[str, Tensor], backbone: Backbone) -> None:
        numerics = backbone.numerics.of_floats
        self._norm = RmsNorm(numerics.weight(tensors["norm"]), backbone.config.norm_eps)
        self._affine = Linear(tensors["affine.weight"], tensors["affine.bias"], numerics)
        self._inner = SwiGlu(tensors["gate.weight"], tensors["up.weight"], numerics)
        self._down = Linear(tensors["down.weight"], None, numerics)
        self._final_norm = backbone.final_norm
        self.nbytes = sum(part.nbytes for part in (self._norm, self._affine, self._inner, self._down))

    def apply(self, hidden: Tensor) -> Tensor:
        x = self._norm(hidden)
        return self._final_norm(self._affine(x) + self._down(self._inner(x)))


KINDS: dict[str, Callable[[Mapping[str, Tensor], Backbone], ExitHead]] = {
    "affine": AffineHead,
    "mlp": MlpHead,
}


def head_shapes(kind: str, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a trained head."""
    d = hidden_size
    shapes: dict[str, tuple[int, ...]] = {"norm": (d,), "affine.weight": (d, d), "affine.bias": (d,)}
    if kind == "mlp":
        shapes |= {"gate.weight": (2 * d, d), "up.weight": (2 * d, d), "down.weight": (d, 2 * d)}
    return shapes
