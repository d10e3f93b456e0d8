"""What is true in the simulated world: models, their depth, speed, size and how well each exit does on each
domain.

The figures are shaped like SmolLM2-135M's; none is a measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from helios_contract.results import EnergyCost, EnergyPoint, HeadCost, MemoryFacts, Resolved, StepTimeFit
from helios_contract.serves import Precision
from helios_operator.api.types import Candidate
from helios_server.planning.memory import MIB, limit_for_rows

Quality = Mapping[tuple[int, str], float]
"""(layer, domain) -> own full-depth bits / exit bits."""


PUBLISHED = Precision()
SHARES = {"auto": 1.0, "int8": 0.5, "int4": 0.3, "fp8": 0.5}
"""Of the bytes as published."""
HELD = {"auto": 1.0, "int8": 0.9995, "int4": 0.93, "fp8": 0.997}


@dataclass(frozen=True)
class Backbone:
    """`worth`: by domain, best bits / own full-depth bits."""

    fingerprint: str
    layers: int
    worth: Mapping[str, float] = field(default_factory=dict)
    layer_ns: int = 900_000
    fixed_mib: int = 110
    layer_mib: int = 7
    joules_per_layer: int = 3000
    error_percent: int = 4
    timed_rows: int = 0
    """The most that a Timing Job times; 0: its law is one line, as of an earlier release."""

    def fit(self, precision: Precision = PUBLISHED) -> StepTimeFit:
        heads = {kind: HeadCost(2_000_000, 150_000) for kind in ("bare", "affine", "mlp")}
        layer_ns = round(self.layer_ns * (1 + SHARES[precision.weight_dtype]) / 2)
        line = StepTimeFit(1_500_000, layer_ns, 22_000, 14, heads, self.error_percent)
        return _timed(line, (1, self.timed_rows)) if self.timed_rows else line

    def memory(self, precision: Precision = PUBLISHED) -> MemoryFacts:
        weights, keys = SHARES[precision.weight_dtype], SHARES[precision.kv_cache_dtype]
        return MemoryFacts(
            process_start_bytes=350 * MIB,
            fixed_bytes=round(self.fixed_mib * MIB * weights),
            layer_bytes=round(self.layer_mib * MIB * weights),
            kv_bytes_per_token_layer=round(1536 * keys),
            activation_bytes_per_token=60_000,
            row_bytes=400_000,
            step_tokens=128,
            page_tokens=16,
        )

    def energy(self) -> EnergyCost:
        points = (
            EnergyPoint(k, rows, k * self.joules_per_layer * 8 // rows)
            for k in (10, self.layers)
            for rows in (1, 8)
        )
        return EnergyCost("declared", tuple(points))


def _timed(line: StepTimeFit, rows: tuple[int, ...]) -> StepTimeFit:
    """The same law, known at these rows."""
    bare = line.heads["bare"]
    own = replace(bare, at_ns=tuple(bare.base_ns + row * bare.per_row_ns for row in rows))
    layer = tuple(line.per_layer_ns + row * line.per_layer_row_ns for row in rows)
    return replace(line, heads={**line.heads, "bare": own}, at_rows=rows, layer_at_ns=layer)


@dataclass(frozen=True)
class Model:
    """A candidate's truth. `quality` of its exits; full depth is always 1."""

    backbone: Backbone
    digest: str = ""
    kind: str = "bare"
    exits: tuple[int, ...] = ()
    quality: Quality = field(default_factory=dict)
    problem: str = ""
    quality_problem: str = ""
    held: Mapping[str, float] = field(default_factory=lambda: HELD)
    """Bits as published / bits with weights, or keys and values, held so; "int4:code": on that domain."""

    def resolved(self) -> Resolved:
        return Resolved(
            revision="rev1",
            backbone=self.backbone.fingerprint,
            num_layers=self.backbone.layers,
            max_context_tokens=2048,
            exits_digest=self.digest,
            head_kind=self.kind,
            exit_layers=self.exits,
            breach_thresholds={layer: 0.3 for layer in self.exits},
        )

    def own_quality(self, layer: int, domain: str) -> float:
        return 1.0 if layer >= self.backbone.layers else self.quality.get((layer, domain), 0.4)

    def kept(self, precision: Precision, domain: str) -> float:
        """Of the quality, whatever the depth."""
        weights, keys = precision.weight_dtype, precision.kv_cache_dtype
        kept, with_keys = (self.held.get(f"{word}:{domain}", self.held[word]) for word in (weights, keys))
        return kept * with_keys


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


EXIT_BYTES = 9 * MIB
AUDIT_BYTES = 12 * MIB
