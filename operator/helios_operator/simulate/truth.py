"""What is true in a made-up world: models, their depth, speed, size and how well each exit does on each
domain.

The figures are shaped like SmolLM2-135M's; none is a measurement (those are in `measured`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from helios_contract.results import (
    EnergyCost,
    EnergyPoint,
    HeadCost,
    MemoryFacts,
    Resolved,
    StepTimeFit,
    Timing,
)
from helios_contract.serves import Precision
from helios_server.planning.memory import MIB

Quality = Mapping[tuple[int, str], float]
"""(layer, domain) -> own full-depth bits / exit bits."""


PUBLISHED = Precision()
EXIT_BYTES = 9 * MIB
AUDIT_BYTES = 12 * MIB
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

    def timing(self, precision: Precision = PUBLISHED) -> Timing | None:
        """What a Timing Job finds. None: it cannot measure this precision."""
        return Timing(
            fit=self.fit(precision),
            memory=self.memory(precision),
            exit_bytes={"mlp": EXIT_BYTES, "affine": EXIT_BYTES // 3},
            audit_bytes=AUDIT_BYTES,
            energy=self.energy(),
        )


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


class Text(Protocol):
    """One prompt, as far as models differ on it."""

    @property
    def domain(self) -> str:
        """What kind of traffic it is of."""
        ...

    @property
    def tokens(self) -> int:
        """Scored."""
        ...

    @property
    def bytes(self) -> int: ...

    def millibits(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> int:
        """Its total at an exit."""
        ...

    def agreement(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> float:
        """Share of its tokens whose most likely one is full depth's, as published."""
        ...


BITS = {"prose": 1.0, "code": 0.6, "german": 1.6}
"""How much harder a domain is to predict."""


@dataclass(frozen=True)
class MadeUpText:
    """How hard it is for every model, and how it treats exits, both in 0..1."""

    domain: str
    hardness: float
    luck: float
    tokens: int = 60
    bytes: int = 240

    def millibits(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> int:
        """Paired over models and exits, with a few per cent of its own."""
        best = (180_000 + 200_000 * self.hardness) * BITS[self.domain]
        full = best / model.backbone.worth.get(self.domain, 1.0)
        own = model.own_quality(layer, self.domain)
        spread = 1 + (self.luck - 0.5) * 0.5 * (1 - own) if own < 1 else 1.0
        kept = model.kept(precision, self.domain)
        return round(full / own * spread / kept * (1 + (self.hardness - 0.5) * 0.2 * (1 - kept)))

    def agreement(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> float:
        kept = model.own_quality(layer, self.domain) * model.kept(precision, self.domain)
        return float(0.3 + 0.7 * kept**3)
