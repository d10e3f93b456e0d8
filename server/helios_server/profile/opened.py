"""A candidate with its files open: checkpoint and, where it names one, head bundle; both checked against each
other.

Called by `inspect.py`, `quality.py` and `timing.py`. It reads headers and json only; weights stay on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helios_server.errors import InvalidRequest
from helios_server.exits.bundle import BundleRef, HeadBundle, open_bundle
from helios_server.exits.head import BareHead, ExitHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.reading import reading
from helios_server.models.store import resolve
from helios_server.profile.candidates import Candidate


@dataclass(frozen=True, slots=True)
class OpenCandidate:
    """exit_layers: legal depths in layers, ascending, all below full depth; revision: resolved."""

    candidate: Candidate
    revision: str
    checkpoint: Checkpoint
    bundle: HeadBundle | None
    exit_layers: tuple[int, ...]

    @property
    def exits_digest(self) -> str:
        """Of the bundle; empty without one."""
        return self.bundle.digest if self.bundle else ""

    @property
    def head_kind(self) -> str:
        """bare | affine | mlp"""
        return self.bundle.kind if self.bundle else BareHead.kind

    @property
    def breach_thresholds(self) -> dict[int, float]:
        """By legal exit, if calibrated: the confidence, 0 to 1, under which a token counts as a breach."""
        known = self.bundle.breach_thresholds() if self.bundle else {}
        return {layer: known[layer] for layer in self.exit_layers if layer in known}

    def head(self, layer: int, backbone: Backbone) -> ExitHead:
        """The head after `layer` layers: the bundle's where it has one there, else the model's own."""
        return self.bundle.head(layer, backbone) if self.bundle else BareHead(backbone)


def open_candidate(candidate: Candidate, volumes: Path | None) -> OpenCandidate:
    """Finds model and bundle and checks that they belong together. Raises HeliosError."""
    with reading(candidate.uri):
        return _open(candidate, volumes)


def _open(candidate: Candidate, volumes: Path | None) -> OpenCandidate:
    model = resolve(candidate.uri, candidate.revision, volumes=volumes)
    checkpoint = Checkpoint.open(model.path, model.named)
    bundle = None
    if candidate.exits:
        bundle = open_bundle(BundleRef(candidate.exits), checkpoint, volumes=volumes)
    layers = _exit_layers(candidate, bundle, checkpoint.config.num_layers)
    return OpenCandidate(candidate, model.revision, checkpoint, bundle, layers)


def open_backbone(candidates: Sequence[Candidate], volumes: Path | None) -> tuple[OpenCandidate, ...]:
    """Opens candidates that must share one backbone."""
    opened = tuple(open_candidate(candidate, volumes) for candidate in candidates)
    first = opened[0]
    for other in opened[1:]:
        if other.checkpoint.fingerprint != first.checkpoint.fingerprint:
            raise InvalidRequest(
                "candidates",
                f"'{other.candidate.name}' and '{first.candidate.name}' are different backbones",
                "Profile one backbone at a time",
            )
    return opened


def _exit_layers(candidate: Candidate, bundle: HeadBundle | None, depth: int) -> tuple[int, ...]:
    """The candidate's own, else the bundle's; full depth, which is always legal, is not listed."""
    layers = candidate.exit_layers or (bundle.layers if bundle else ())
    for layer in layers:
        if layer > depth:
            raise InvalidRequest(
                "exitLayers", f"{layer} is above the model's depth of {depth}", f"Use layers 1 to {depth}"
            )
    return tuple(layer for layer in layers if layer < depth)
