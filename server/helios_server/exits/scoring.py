"""How a text is scored under an exit: bits, most likely token and confidence of each prediction, calibration.

The one place for it: called by the profiler, the serving audit and the evaluation of bundles, so that their
figures may be compared. Whoever calls scores every token but the first, without a begin token before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from helios_server.models.backbone import Backbone

BLOCK_TOKENS = 64  # logits of one block are all that is held at a time


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of N predictions, on the CPU. bits: [N] float64, of the token that followed; top: [N] int64, the most
    likely token; confidence: [N] float32, its probability, 0 to 1."""

    bits: Tensor
    top: Tensor
    confidence: Tensor


def score(
    backbone: Backbone, head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> TokenScores:
    """Scores `targets`: [N] int64, the tokens that followed, on `hidden`: [N, hidden_size].

    `head` makes hidden ready for the LM head: an exit's `apply`, or `final_norm` at full depth.
    """
    if len(targets) == 0:
        nothing = torch.empty(0)
        return TokenScores(nothing.double(), nothing.long(), nothing)
    blocks = zip(hidden.split(BLOCK_TOKENS), targets.split(BLOCK_TOKENS), strict=True)
    parts = [_score_block(backbone.logits(head(rows)), ids) for rows, ids in blocks]
    bits, top, confidence = (torch.cat(part) for part in zip(*parts, strict=True))
    return TokenScores(bits, top, confidence)


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 20) -> float:
    """Expected calibration error, 0 to 1: how far confidence is from the share correct, in equal-width bins.

    confidence: [N] float, 0 to 1; correct: [N] bool.
    """
    if len(confidence) == 0:
        return 0.0
    where = (confidence * bins).long().clamp(0, bins - 1)
    surplus = torch.zeros(bins, dtype=torch.float64).index_add(
        0, where, confidence.double() - correct.double()
    )
    return float(surplus.abs().sum() / len(confidence))


def _score_block(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overwrites the logits: a second array of that size would cost more time than the arithmetic."""
    highest, top = logits.max(dim=-1)
    given = logits.gather(1, targets[:, None])[:, 0]
    total = logits.sub_(highest[:, None]).exp_().sum(dim=-1)  # relative to the highest
    bits = (total.log() + highest - given).double() / math.log(2)
    return bits.cpu(), top.cpu(), total.reciprocal().float().cpu()
