"""Typed, read-only view of HeliosModel, an entry of the Model Repository. Built by `api.parse`.

Read by whoever puts the catalogue beside a deployment's own candidates. As `api.types`, it must not validate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_operator.api.status import ModelStatus
from helios_operator.api.types import Candidate


@dataclass(frozen=True)
class Published:
    """The author's figures of a HeliosModel: enough for a shortlist, corrected by the first profile."""

    parameters_millions: int | None = None
    num_layers: int | None = None
    memory_mib: int | None = None
    quality_percent: int | None = None
    tokens_per_second: int | None = None
    accelerator: str | None = None


@dataclass(frozen=True)
class Model:
    """A HeliosModel: an entry of the Model Repository."""

    name: str
    labels: dict[str, str]
    candidate: Candidate
    published: Published
    namespace: str = "default"
    generation: int = 0
    """The API server raises it with every change of the spec."""
    status: ModelStatus = field(default=ModelStatus())
