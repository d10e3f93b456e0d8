"""The model as published, a part at a time: what audits compare a quantised one with.

Read by the audit's thread, run by its batches between steps. It must hold nothing: one layer, or a part of a
table of no more bytes, lives with whoever asked for it.
"""

from __future__ import annotations

import math

import torch
from helios_contract.serves import AUTO, Precision
from torch import Tensor

from helios_server.models.backbone import Backbone, Layer
from helios_server.models.layout import layer_shapes
from helios_server.models.linear import Linear
from helios_server.native.quantised import floats


class Reference:
    """Of the model that serves. `backbone` runs the layers; none of them are attached to it.

    starts: the first rows of the parts in which the LM head comes.
    """

    def __init__(self, serving: Backbone) -> None:
        self.backbone = serving.in_precision(Precision())
        self.backbone.truncate(0)
        config = serving.config
        self._as_published = serving if serving.precision.weight_dtype == AUTO else None
        rows = max(1, layer_elements(serving) // config.hidden_size)
        self._rows = config.vocab_size if self._as_published else rows
        self.starts = range(0, config.vocab_size, self._rows)

    def load_layer(self, index: int) -> Layer:
        """As a thread that may wait reads it; one that serves as it is published is not read."""
        if self._as_published and index < len(layers := tuple(self._as_published.layers)):
            return layers[index].with_keys_and_values(self.backbone.numerics)
        return self.backbone.load_layer(index)

    def embedded(self, ids: Tensor, positions: Tensor) -> Tensor:
        """ids, positions: [T] int64. Returns [T, hidden_size], activation dtype: what the first layer
        reads.
        """
        if self._as_published:
            return self._as_published.embed(ids, positions)
        table, device = self.backbone.source.embedding, self.backbone.numerics.device
        rows = torch.empty(len(ids), self.backbone.config.hidden_size, dtype=torch.float64)
        ids = ids.cpu()
        for start in self.starts:
            within = ((ids >= start) & (ids < start + self._rows)).nonzero()[:, 0]
            if len(within):
                rows[within] = floats(table(self._part(start)))[ids[within] - start].double()
        numerics = self.backbone.numerics
        return self.backbone.placed(rows.to(device, numerics.weights), positions)

    def head(self, start: int) -> Linear:
        """The part of the LM head from a row on."""
        if self._as_published:
            return self._as_published.head
        return Linear(self.backbone.source.head(self._part(start)), None, self.backbone.numerics)

    def _part(self, start: int) -> slice:
        return slice(start, min(start + self._rows, self.backbone.config.vocab_size))


def layer_elements(backbone: Backbone) -> int:
    """Weights of one layer."""
    return sum(math.prod(shape) for shape in layer_shapes(backbone.config).values())
