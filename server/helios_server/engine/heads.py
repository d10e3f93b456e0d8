"""The exit heads that are resident: for every bundle, one head at each exit layer.

Loaded by the engine at start and by changes of limits, read by the runner (to serve) and by the audit (to
compare). It must not decide which bundle serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from helios_contract.limits import Audit, Limits
from helios_contract.serves import Bundle

from helios_server.errors import BundleError
from helios_server.exits.bundle import BundleRef, HeadBundle, open_bundle
from helios_server.exits.head import BareHead, ExitHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class LoadedBundle:
    """One bundle's heads and breach thresholds (confidence, 0 to 1) by exit layer.

    digest: "" for the bare one.
    """

    digest: str
    heads: dict[int, ExitHead]
    thresholds: dict[int, float]

    @property
    def nbytes(self) -> int:
        return sum(head.nbytes for head in self.heads.values())


class Heads:
    """The bundles resident for one backbone, by digest; the bare one is always among them."""

    def __init__(self, backbone: Backbone, bundles: Iterable[LoadedBundle]) -> None:
        self._bare = BareHead(backbone)
        self._bundles = {"": LoadedBundle("", {}, {})} | {bundle.digest: bundle for bundle in bundles}

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all bundles resident, "" first."""
        return tuple(self._bundles)

    @property
    def nbytes(self) -> int:
        """Resident bytes of all heads."""
        return sum(bundle.nbytes for bundle in self._bundles.values())

    def at(self, digest: str, depth: int) -> ExitHead:
        """The head after `depth` layers: the model's own norm at full depth and where the bundle has none."""
        return self._bundles[digest].heads.get(depth, self._bare)

    def thresholds(self, digest: str) -> dict[int, float]:
        """By exit layer: the calibrated confidence, in [0, 1], under which a token there is a breach."""
        return self._bundles[digest].thresholds

    def loaded(self, digest: str) -> LoadedBundle | None:
        """A bundle that need not be read again."""
        return self._bundles.get(digest)


def load_heads(
    backbone: Backbone,
    limits: Limits,
    known: Heads | None,
    *,
    volumes: Path | None = None,
    offline: bool | None = None,
) -> tuple[Heads, Limits]:
    """Loads every bundle that the limits name, keeping those that `known` has for the same backbone.

    Returns the limits with every digest filled in.
    """
    resolved: dict[Bundle, LoadedBundle] = {}
    for spec in dict.fromkeys((limits.bundle, *limits.audit.bundles)):
        resolved[spec] = _load(spec, backbone, known, volumes, offline)
    served = resolved[limits.bundle].digest
    bundles = tuple(replace(spec, digest=resolved[spec].digest) for spec in limits.audit.bundles)
    audit: Audit = replace(limits.audit, bundles=bundles)
    return Heads(backbone, resolved.values()), replace(limits, exits_digest=served, audit=audit)


def check_bundles(
    limits: Limits, checkpoint: Checkpoint, known: Heads, volumes: Path | None, offline: bool | None
) -> None:
    """Raises BundleError for a bundle that cannot be loaded, before anything is let go for it."""
    for spec in dict.fromkeys((limits.bundle, *limits.audit.bundles)):
        if spec.uri and not (spec.digest and known.loaded(spec.digest)):
            open_bundle(
                BundleRef(spec.uri, spec.digest or None), checkpoint, volumes=volumes, offline=offline
            )


def _load(
    spec: Bundle, backbone: Backbone, known: Heads | None, volumes: Path | None, offline: bool | None
) -> LoadedBundle:
    if not spec.uri:
        return LoadedBundle("", {}, {})
    if spec.digest and known and (kept := known.loaded(spec.digest)):
        return kept
    ref = BundleRef(spec.uri, spec.digest or None)
    bundle = open_bundle(ref, backbone.checkpoint, volumes=volumes, offline=offline)
    resident = _resident(bundle, backbone)
    if HeadBundle.load(bundle.path, backbone.checkpoint).digest != bundle.digest:
        raise BundleError(spec.uri, "changed while it was read", "Try again when it is complete")
    return resident


def _resident(bundle: HeadBundle, backbone: Backbone) -> LoadedBundle:
    heads = {layer: bundle.head(layer, backbone) for layer in bundle.layers}
    return LoadedBundle(bundle.digest, heads, bundle.breach_thresholds())
