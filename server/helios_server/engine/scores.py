"""What a batch of audited prompts is worth under one head, whole or a part of the vocabulary at a time.

Made by `audit_batch.py`, which cuts it by prompts. It must know nothing of layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from helios_server.exits.scoring import peaks
from helios_server.native.library import Library


@dataclass(frozen=True)
class Scores:
    """Of N predictions. bits: [N] float64, of the token that followed; top: [N] int64, the most likely."""

    bits: Tensor
    top: Tensor

    def finite(self, part: slice) -> bool:
        return bool(self.bits[part].isfinite().all())


class PartialScores:
    """Scores of N predictions whose logits come a part of the vocabulary at a time.

    The same as `exits.scoring.score` of all of them, but for the last bits of the sums.
    """

    def __init__(self, targets: Tensor, kernels: Library | None) -> None:
        """kernels: of the model whose logits they are."""
        count = len(targets)
        self._kernels = kernels
        self._targets = targets
        self._highest = torch.full((count,), -torch.inf, dtype=torch.float64)
        self._total = torch.zeros(count, dtype=torch.float64)
        self._given = torch.zeros(count, dtype=torch.float64)
        self._top = torch.zeros(count, dtype=torch.int64)

    def add(self, rows: slice, start: int, logits: Tensor) -> None:
        """logits: [n, part] of predictions `rows`, for the ids from `start` on; ascending parts. They may be
        overwritten."""
        targets = self._targets[rows] - start
        within = ((targets >= 0) & (targets < logits.shape[1])).nonzero()[:, 0]
        self._given[rows.start + within.cpu()] = logits[within, targets[within]].double().cpu()
        found = peaks(logits if logits.dtype == torch.float64 else logits.float(), self._kernels)
        best, top, part = found.highest.double().cpu(), found.top.cpu(), found.total.double().cpu()
        before = self._highest[rows]
        highest = torch.maximum(before, best)
        total = self._total[rows] * (before - highest).exp() + part * (best - highest).exp()
        self._top[rows] = torch.where(best > before, top + start, self._top[rows])
        self._total[rows], self._highest[rows] = total, highest

    def all(self) -> Scores:
        """Once every part was added."""
        return Scores((self._total.log() + self._highest - self._given) / math.log(2), self._top)
