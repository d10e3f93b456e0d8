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
from helios_server.native.library import Library

BLOCK_TOKENS = 64  # logits of one block are all that is held at a time


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Of N predictions, on the CPU. bits: [N] float64, of the token that followed; top: [N] int64, the most
    likely token; confidence: [N] float32, its probability, 0 to 1."""

    bits: Tensor
    top: Tensor
    confidence: Tensor


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of N rows of logits. highest: [N]; top: [N] int64, its place; total: [N], the sum of exp(x - highest).
    Of a row that holds what is no number the total is none."""

    highest: Tensor
    top: Tensor
    total: Tensor


def peaks(logits: Tensor, kernels: Library | None) -> Peaks:
    """logits: [N, size], float32 or float64; on torch's path overwritten: a second array of that size would
    cost more time than the arithmetic. kernels: of the model whose logits they are. What tokens are chosen by
    (`engine/survey.py`) leaves them as they are, and is the same in any company, which takes torch longer."""
    if kernels is None:
        highest, top = logits.max(dim=-1)
        return Peaks(highest, top, logits.sub_(highest[:, None]).exp_().sum(dim=-1))
    found = kernels.choose(logits)
    total = torch.tensor(found.total).masked_fill_(~torch.tensor(found.finite), math.nan)
    return Peaks(torch.tensor(found.highest), torch.tensor(found.best), total)


def score(
    backbone: Backbone, head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> TokenScores:
    """Scores `targets`: [N] int64, the tokens that followed, on `hidden`: [N, hidden_size].

    `head` makes hidden ready for the LM head: an exit's `apply`, or `final_norm` at full depth.
    """
    if len(targets) == 0:
        nothing = torch.empty(0)
        return TokenScores(nothing.double(), nothing.long(), nothing)
    room = logits_room(backbone, min(BLOCK_TOKENS, len(targets)))
    blocks = zip(hidden.split(BLOCK_TOKENS), targets.split(BLOCK_TOKENS), strict=True)
    parts = [score_block(backbone, head(rows), ids, room) for rows, ids in blocks]
    return TokenScores(*(torch.cat(part) for part in zip(*parts, strict=True)))


def logits_room(backbone: Backbone, rows: int) -> Tensor | None:
    """[rows, vocab_size] for one block after the other: the system would give, and empty, so much memory for
    each. None: torch makes its own."""
    return torch.empty(rows, backbone.config.vocab_size) if backbone.is_native else None


def score_block(
    backbone: Backbone, normed: Tensor, targets: Tensor, room: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What `TokenScores` has of `targets`: [N] on `normed`: [N, hidden_size], made ready for the LM head.
    room: for logits of N or more rows, None: they take their own."""
    logits = backbone.logits(normed, None if room is None else room[: len(normed)])
    given = logits.gather(1, targets[:, None])[:, 0]
    found = peaks(logits, backbone.numerics.library)
    bits = (found.total.log() + found.highest - given).double() / math.log(2)
    return bits.cpu(), found.top.cpu(), found.total.reciprocal().float().cpu()


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
