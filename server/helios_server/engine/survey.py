"""What every row of logits is looked at for: the largest, how far the others are below, whether all are
numbers.

Called by the sampler, once a step for all rows, which the native kernels look at where they compute. It must
not know what the rows ask for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helios_server.native.library import Library

_ROWS_AT_ONCE = 8
"""Whose probabilities are held: far less than the logits of a step."""


class Survey(NamedTuple):
    """Of N rows, in order.

    best: id of the largest logit, the lowest id of several; highest: that logit; total: the sum of
    exp(logit - highest) over the vocabulary, so that the largest probability is its reciprocal; finite:
    whether every logit is a number. Of a row that is not finite the others mean nothing.
    """

    best: list[int]
    highest: list[float]
    total: list[float]
    finite: list[bool]


def survey(logits: Tensor, kernels: Library | None = None) -> Survey:
    """logits: [N, vocab_size], float32 or float64; left as they are. A row's result is the same, bit for bit,
    alone and beside any others, with any number of threads. kernels: of the model whose logits they are."""
    if kernels is not None:
        return Survey(*kernels.choose(logits))
    highest, lowest = logits.amax(dim=-1), logits.amin(dim=-1)
    # Softmax works row by row; a sum over one row alone would be split among threads.
    likeliest = [rows.softmax(dim=-1).amax(dim=-1) for rows in logits.split(_ROWS_AT_ONCE)]
    return Survey(
        best=_argmax(logits),
        highest=highest.tolist(),
        total=torch.cat(likeliest).double().reciprocal().tolist(),
        finite=(highest.isfinite() & lowest.isfinite()).tolist(),
    )


def _argmax(logits: Tensor) -> list[int]:
    """numpy's is ten times as fast as torch's on a CPU."""
    found = logits.numpy().argmax(axis=-1) if logits.device.type == "cpu" else logits.argmax(dim=-1)
    ids: list[int] = found.tolist()
    return ids
