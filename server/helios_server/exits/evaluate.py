"""Measures exits on held-out text, teacher-forced: what `exits.json` and docs/exits.md report.

Called by `tuning.py` and the recipes of the built-in bundles. All bundles are scored on the same hidden
states, from one full-depth pass; the scoring itself is `scoring.py`'s, the same as the profiler's and the
audit's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from helios_server.exits.bundle import HeadBundle
from helios_server.exits.confidence import Calibration
from helios_server.exits.head import BareHead, ExitHead
from helios_server.exits.hidden import Passed, states_of
from helios_server.exits.scoring import TokenScores, calibration_error, score
from helios_server.models.backbone import Backbone
from helios_server.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ExitQuality:
    """One exit on one text. layer: layers run; tokens: predictions scored; bits_per_byte: of the text;
    quality_percent: 100 x full-depth bits / exit bits; agreement: share of predictions that full depth
    makes too, 0 to 1; mean_confidence: 0 to 1; ece: expected calibration error of confidence against
    agreement, 0 to 1."""

    layer: int
    tokens: int
    bits_per_byte: float
    quality_percent: float
    agreement: float
    mean_confidence: float
    ece: float

    def to_json(self) -> dict[str, Any]:
        """Rounded to what the measurement carries."""
        return {
            key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One bundle on one text. full_bits_per_byte: at full depth; exits: by layer, ascending; samples: layer
    -> confidence [N] float, 0 to 1, and whether full depth agrees [N] bool, of every prediction."""

    full_bits_per_byte: float
    exits: tuple[ExitQuality, ...]
    samples: Mapping[int, tuple[Tensor, Tensor]]

    def to_json(self, text: str) -> dict[str, Any]:
        """A row of `evaluation` in exits.json. text: what it was measured on."""
        return {
            "text": text,
            "fullDepthBitsPerByte": round(self.full_bits_per_byte, 4),
            "exits": [item.to_json() for item in self.exits],
        }


def calibrate(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The `calibration` part of exits.json: per exit, over the predictions of all the evaluations."""
    calibrations = {}
    for layer in evaluations[0].samples:
        confidence = torch.cat([evaluation.samples[layer][0] for evaluation in evaluations])
        agrees = torch.cat([evaluation.samples[layer][1] for evaluation in evaluations])
        calibrations[str(layer)] = Calibration.fit(confidence.tolist(), agrees.tolist()).to_json()
    return calibrations


def evaluate(
    backbone: Backbone,
    bundles: Mapping[str, HeadBundle | None],
    layers: Sequence[int],
    windows: Tensor,
    tokenizer: Tokenizer,
    passed: Passed = lambda _: None,
) -> dict[str, Evaluation]:
    """Scores every bundle (None: no bundle, the model's own head) at `layers` on windows: [n, length]
    int64."""
    heads = {
        (name, layer): bundle.head(layer, backbone) if bundle else BareHead(backbone)
        for name, bundle in bundles.items()
        for layer in layers
    }
    full: list[TokenScores] = []
    scores: dict[tuple[str, int], list[TokenScores]] = {key: [] for key in heads}
    for count, window in enumerate(windows, 1):
        _score_window(backbone, window, heads, full, scores)
        passed(count / len(windows))
    text_bytes = sum(tokenizer.bytes_of(window[1:].tolist()) for window in windows)
    return {
        name: _summary({layer: scores[name, layer] for layer in layers}, full, text_bytes) for name in bundles
    }


def _score_window(
    backbone: Backbone,
    window: Tensor,
    heads: Mapping[tuple[str, int], ExitHead],
    full: list[TokenScores],
    scores: dict[tuple[str, int], list[TokenScores]],
) -> None:
    layers = sorted({layer for _, layer in heads})
    states, last = states_of(backbone, window[None], layers)
    targets = window[1:].to(last.device)
    full.append(score(backbone, backbone.final_norm, last[:-1], targets))
    for (name, layer), head in heads.items():
        scores[name, layer].append(score(backbone, head.apply, states[layer][:-1], targets))


def _summary(
    by_layer: Mapping[int, list[TokenScores]], full: list[TokenScores], text_bytes: int
) -> Evaluation:
    full_bits = float(torch.cat([part.bits for part in full]).sum())
    full_top = torch.cat([part.top for part in full])
    exits, samples = [], {}
    for layer, parts in sorted(by_layer.items()):
        bits = float(torch.cat([part.bits for part in parts]).sum())
        agrees = torch.cat([part.top for part in parts]) == full_top
        confidence = torch.cat([part.confidence for part in parts])
        samples[layer] = (confidence, agrees)
        exits.append(
            ExitQuality(
                layer=layer,
                tokens=len(agrees),
                bits_per_byte=bits / text_bytes,
                quality_percent=100 * full_bits / bits,
                agreement=float(agrees.double().mean()),
                mean_confidence=float(confidence.double().mean()),
                ece=calibration_error(confidence, agrees),
            )
        )
    return Evaluation(full_bits / text_bytes, tuple(exits), samples)
