"""What is left of the weights that served, while the same model in another precision takes their place.

Held by `changes.py` for one change, asked by whoever loads (`serving.py`). The old layers go one by one, each
when the new one stands, so that a process holds one model and one layer, never two models; a change that
breaks in the middle reads only those again that are gone. It must read nothing itself.
"""

from __future__ import annotations

from helios_server.models.backbone import Backbone, Layer


class Kept:
    """backbone: all of it, as long as nothing was given up; None keeps nothing."""

    def __init__(self, backbone: Backbone | None = None) -> None:
        self.backbone = backbone
        self._weights = backbone.precision.weight_dtype if backbone else ""
        self._layers: dict[int, Layer] = {layer.index: layer for layer in backbone.layers} if backbone else {}

    @property
    def nbytes(self) -> int:
        """Resident bytes of the layers that are left."""
        return sum(layer.nbytes for layer in self._layers.values())

    def whole(self, weight_dtype: str) -> Backbone | None:
        """The weights as they served, if they are in this precision and nothing of them is gone."""
        return self.backbone if self._weights == weight_dtype else None

    def give_up_tables(self, layers: int) -> None:
        """Embedding, head and norms go before others come, and so do the layers from number `layers` on."""
        self.backbone = None
        for index in [index for index in self._layers if index >= layers]:
            del self._layers[index]

    def exchange(self, layer: Layer) -> None:
        """A layer stands in the precision that comes: the one in its place goes."""
        self._layers.pop(layer.index, None)

    def next(self, backbone: Backbone, index: int) -> Layer:
        """A layer of a backbone that is being loaded: the one that served, where it is in its precision and
        still there; else read, and the one in its place goes.
        """
        if self._weights == backbone.precision.weight_dtype and index in self._layers:
            return self._layers.pop(index)
        layer = backbone.load_layer(index)
        self.exchange(layer)
        return layer
