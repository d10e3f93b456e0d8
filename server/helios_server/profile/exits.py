"""How well each exit does on given texts: bits, agreement with full depth, confidence and its calibration.

Called by `quality.py`. It scores through `exits.scoring`, as the serving audit does, and turns tokens' scores
into figures per exit; it reads no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helios_server.exits.head import BareHead, ExitHead
from helios_server.exits.scoring import TokenScores, calibration_error, score
from helios_server.models.backbone import Backbone
from helios_server.profile.streaming import stream_layers

Heads = Mapping[str, Mapping[int, ExitHead]]  # candidate -> layer -> head
Scores = dict[str, dict[int, TokenScores]]  # candidate -> layer -> scores of every prediction


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as one model reads them. ids: [length] int64 each; given: per text, 1 or more tokens at its
    beginning that are not predicted."""

    ids: tuple[Tensor, ...]
    given: tuple[int, ...]

    @property
    def predictions(self) -> list[int]:
        """Tokens predicted, per text."""
        return [len(ids) - given for ids, given in zip(self.ids, self.given, strict=True)]

    @property
    def scored_tokens(self) -> int:
        """Tokens predicted in all texts."""
        return sum(self.predictions)

    def targets(self) -> Tensor:
        """Where the predicted tokens lie in the packed texts: [scored_tokens] int64."""
        ends = torch.tensor([len(ids) for ids in self.ids]).cumsum(0).tolist()
        spans = zip(ends, self.predictions, strict=True)
        return torch.cat([torch.arange(end - count, end) for end, count in spans])


@dataclass(frozen=True, slots=True)
class ExitQuality:
    """One depth of one candidate. layer: layers run; millibits: total.

    agreement, first_agrees: shares of tokens, 0 to 1, whose top-1 equals the reference's at full depth, at
    all or here first; calibration_error: of confidence as the chance of that agreement, 0 where it is
    certain; mean_confidence: 0 to 1; prompt_millibits: per text, in order.
    """

    layer: int
    millibits: int
    agreement: float
    first_agrees: float
    calibration_error: float
    mean_confidence: float
    prompt_millibits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """exits: by candidate, every exit in ascending order and, last, full depth. top: [scored_tokens] int64,
    the most likely tokens at full depth."""

    exits: Mapping[str, tuple[ExitQuality, ...]]
    top: Tensor


def measure_exits(
    backbone: Backbone,
    heads: Heads,
    texts: Texts,
    progress: Callable[[str], None],
    reference: Tensor | None = None,
    passed: Callable[[int], None] = lambda _: None,
) -> Measured:
    """passed: is told of each layer that is done.

    reference: most likely tokens of full depth in the reference precision, which agreement is with; None:
    this backbone's own."""
    where = texts.targets()
    tokens = torch.cat(list(texts.ids))[where]
    scores, full = _score_all(backbone, heads, texts.ids, where - 1, tokens, progress, passed)
    depth, top = backbone.config.num_layers, full.top if reference is None else reference
    exits = {name: _judge({**by, depth: full}, top, texts.predictions) for name, by in scores.items()}
    return Measured(exits, full.top)


def _score_all(
    backbone: Backbone,
    heads: Heads,
    texts: Sequence[Tensor],
    where: Tensor,
    targets: Tensor,
    progress: Callable[[str], None],
    passed: Callable[[int], None],
) -> tuple[Scores, TokenScores]:
    """Scores of every exit of every candidate, and of full depth, at the positions `where`: [N]."""
    device = backbone.numerics.device
    where, targets = where.to(device), targets.to(device)
    scores: Scores = {name: {} for name in heads}
    hidden = torch.empty(0)
    layers = backbone.config.num_layers
    for depth, hidden in stream_layers(backbone, texts):
        for name, exits in heads.items():
            if depth in exits:
                scores[name][depth] = score(backbone, exits[depth].apply, hidden[where], targets)
                progress(f"layer {depth} of {layers}: {name} scored")
        passed(depth)
    return scores, score(backbone, BareHead(backbone).apply, hidden[where], targets)


def _judge(
    exits: Mapping[int, TokenScores], reference: Tensor, predictions: Sequence[int]
) -> tuple[ExitQuality, ...]:
    rows = []
    undecided = torch.ones(len(reference), dtype=torch.bool)
    for layer, scores in sorted(exits.items()):
        agrees = scores.top == reference
        rows.append(
            ExitQuality(
                layer=layer,
                millibits=_millibits(scores.bits),
                agreement=_share(agrees),
                first_agrees=_share(agrees & undecided),
                calibration_error=_calibration_error(scores, reference, agrees),
                mean_confidence=float(scores.confidence.double().mean()),
                prompt_millibits=tuple(_millibits(bits) for bits in scores.bits.split(list(predictions))),
            )
        )
        undecided &= ~agrees
    return tuple(rows)


def _calibration_error(scores: TokenScores, reference: Tensor, agrees: Tensor) -> float:
    """With itself the reference agrees for certain, whatever its confidence."""
    return 0.0 if scores.top is reference else calibration_error(scores.confidence, agrees)


def _millibits(bits: Tensor) -> int:
    return round(float(bits.sum()) * 1000)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
