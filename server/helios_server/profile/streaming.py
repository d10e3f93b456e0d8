"""One full-depth pass over whole texts with one decoder layer resident at a time.

Called by `quality.py`. It needs the memory of a layer and of the texts' hidden states, whatever the model's
depth; it attends causally within each text and keeps no cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from helios_server.models.backbone import Backbone
from helios_server.models.step import whole_sequences

GROUP_TOKENS = 512  # texts are run through a layer in groups of about so many tokens: bounds its temporaries


def stream_layers(backbone: Backbone, texts: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Yields (layers run, hidden) after every layer up to full depth; hidden: [T, hidden_size], the texts
    packed.

    texts: token ids, [length] int64 each, none empty. `hidden` is overwritten by the next layer.
    """
    device, lengths = backbone.numerics.device, [len(text) for text in texts]
    positions = torch.cat([torch.arange(length) for length in lengths])
    hidden = backbone.embed(torch.cat(list(texts)).to(device), positions.to(device))
    for index in range(backbone.config.num_layers):
        layer = backbone.layers[index] if index < backbone.num_loaded else backbone.load_layer(index)
        for rows, group in _groups(lengths):
            hidden[rows] = backbone.run([layer], hidden[rows], whole_sequences(backbone.layout, group))
        yield index + 1, hidden


def _groups(lengths: Sequence[int]) -> Iterator[tuple[slice, list[int]]]:
    """Consecutive whole texts of about `GROUP_TOKENS` together: their rows and their lengths."""
    start, group = 0, list[int]()
    for length in lengths:
        if group and sum(group) + length > GROUP_TOKENS:
            yield slice(start, start + sum(group)), group
            start, group = start + sum(group), []
        group.append(length)
    yield slice(start, start + sum(group)), group
