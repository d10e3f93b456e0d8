"""Models that the tests' worlds serve; none of the figures is a measurement."""

from __future__ import annotations

from helios_operator.api.types import Candidate
from helios_operator.simulate.truth import (
    AUDIT_BYTES,
    EXIT_BYTES,
    HELD,
    PUBLISHED,
    Backbone,
    Model,
    Quality,
)
from helios_server.planning.memory import MIB, limit_for_rows

__all__ = ["AUDIT_BYTES", "EXIT_BYTES", "HELD", "PUBLISHED", "Backbone", "Model", "Quality"]

BIG = Backbone("big", 30)
SMALL = Backbone("small", 26, worth={"prose": 0.91, "code": 0.795, "german": 0.6})


def bundle(digest: str, **by_domain: tuple[float, float]) -> Model:
    """Heads at 24 and 27 of the big backbone: their quality by domain."""
    quality = {
        (layer, d): q for d, pair in by_domain.items() for layer, q in zip((24, 27), pair, strict=True)
    }
    return Model(BIG, digest, "mlp", (24, 27), quality)


GENERAL = bundle("sha256:general", prose=(0.94, 0.97), code=(0.87, 0.945), german=(0.59, 0.75))
PROSE = bundle("sha256:prose", prose=(0.945, 0.97), code=(0.48, 0.67), german=(0.5, 0.6))
CODE = bundle("sha256:code", prose=(0.76, 0.84), code=(0.93, 0.96), german=(0.5, 0.6))
NOISE = bundle("sha256:noise", prose=(0.2, 0.25), code=(0.2, 0.25), german=(0.2, 0.25))
FRAIL = Model(
    BIG, "sha256:frail", "mlp", (24, 27), GENERAL.quality, held={**HELD, "int4": 0.985, "int4:code": 0.8}
)
"""As good as the general one; in four bits so on prose alone."""
BARE_BIG = Model(BIG)
BARE_SMALL = Model(SMALL)


def candidate(name: str, model: Model, uri: str = "", weights: str = "auto", keys: str = "auto") -> Candidate:
    """`weights`, `keys`: what may be weighed, separated by spaces; "": what the operator does by default."""
    return Candidate(
        name=name,
        uri=uri or f"file:///models/{model.backbone.fingerprint}",
        exits=f"builtin://{model.digest.removeprefix('sha256:')}" if model.digest else None,
        exit_layers=model.exits,
        weight_dtypes=tuple(weights.split()),
        kv_cache_dtypes=tuple(keys.split()),
    )


def memory_for(backbone: Backbone, rows: int, tokens: int = 112, bundles: int = 1) -> int:
    """MiB under which full depth holds this many rows."""
    limit = limit_for_rows(
        backbone.memory(),
        layers=backbone.layers,
        rows=rows,
        tokens_per_request=tokens,
        exit_bytes=bundles * EXIT_BYTES,
        audit_bytes=AUDIT_BYTES,
    )
    return -(-limit // MIB)
