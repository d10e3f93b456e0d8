"""What a bundle's own measurements say to whoever trained it: a row per text and exit, and whether the text
was enough.

Called by the command (`helios tune`). It reads what `tuning.py` wrote into exits.json, and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from helios_server.exits.bundle import HeadBundle

_WIDE_PERCENT = 2.0
"""Quality that is lost from text that was trained on to text that was not: more of it is learnt by heart."""
_AIM_PERCENT = 1.0
_FEW_TOKENS, _USUAL_TOKENS = 50_000, 300_000
"""Of a text: fewer than that and its held-out windows tell little; the built-in bundles have as many."""
_ROUND_TO = 10_000


@dataclass(frozen=True)
class MeasuredExit:
    """One exit on one text, or full depth, which has no `ece`. `bits_per_byte`: of held-out text;
    `quality_percent`: 100 x full-depth bits / its own; `agreement`: share of its predictions
    that full depth makes too; `ece`: expected calibration error, 0 to 1."""

    text: str
    layer: int
    bits_per_byte: float
    quality_percent: float
    agreement: float
    ece: float | None


def measured(bundle: HeadBundle, num_layers: int) -> tuple[MeasuredExit, ...]:
    """Of each text its exits, ascending, then full depth."""
    rows = []
    for text in bundle.meta["evaluation"]:
        name = _name(text)
        rows += [
            MeasuredExit(name, e["layer"], e["bits_per_byte"], e["quality_percent"], e["agreement"], e["ece"])
            for e in text["exits"]
        ]
        rows.append(MeasuredExit(name, num_layers, text["fullDepthBitsPerByte"], 100.0, 1.0, None))
    return tuple(rows)


def warnings(bundle: HeadBundle) -> Iterator[str]:
    """Of texts that were too little, with how much to give."""
    for text in bundle.meta["evaluation"]:
        name, tokens = _name(text), text["trainedTokens"]
        lost = max(
            text["trainedQualityPercent"][str(exit["layer"])] - exit["quality_percent"]
            for exit in text["exits"]
        )
        if lost > _WIDE_PERCENT:
            yield (
                f"{name}: too little text, {tokens:,} tokens: heads are {lost:.1f} points of quality better "
                f"on what they were trained on than on the rest of it; {_give(_enough(tokens, lost))}"
            )
        elif tokens < _FEW_TOKENS:
            yield (
                f"{name}: little text, {tokens:,} tokens: what was held out is too short to be sure of; "
                f"{_give(_USUAL_TOKENS)}"
            )


def _enough(tokens: int, lost: float) -> int:
    """What is learnt by heart falls as one over the tokens."""
    wanted = max(tokens * lost / _AIM_PERCENT, _FEW_TOKENS)
    return -(-round(wanted) // _ROUND_TO) * _ROUND_TO


def _give(tokens: int) -> str:
    """A longer text alone is read no further than before."""
    return f"give {tokens:,} tokens, with --tokens {tokens}"


def _name(text: dict[str, Any]) -> str:
    return str(text["text"]).removesuffix(": held-out windows")
