"""What texts are worth under a model: bits of each, teacher-forced at full depth, as a Quality Job has it.

Called by `make` with held-out text and by `__main__` with every prompt of a trace. It must not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.quality import QualitySettings, measure_quality
from helios_server.progress import Progress


@dataclass(frozen=True)
class Scored:
    """millibits, bytes: of each text, in their order; its first token is given."""

    millibits: tuple[int, ...]
    bytes: tuple[int, ...]


def score(model: Path, texts: Sequence[str]) -> Scored:
    """Weights as published. Takes seconds, and memory that it does not give back: call it through
    `bench.load.alone`."""
    opened = open_backbone((Candidate("judged", f"file://{model}"),), None)
    quality = measure_quality(opened, texts, QualitySettings(), Progress())
    return Scored(quality.rows[0].exits[-1].prompt_millibits, quality.prompt_bytes)
