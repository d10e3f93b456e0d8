"""What profiles say of candidates, as the truth of a world: times and memory by the fitted laws, quality by
the prompts that were scored.

Made by `simulate.profiles` from rows of the history table, read by the world's Jobs and pods. A prompt of a
profile stands for a request: drawn again, it is worth the same to every model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from helios_contract.results import ExitQuality, Resolved, Timing
from helios_contract.serves import Precision
from helios_contract.telemetry import AuditRow

from helios_operator.api.rows import QualityRow
from helios_operator.simulate.truth import PUBLISHED, Backbone, Model


@dataclass(frozen=True, eq=False)
class MeasuredBackbone(Backbone):
    """One instance for all candidates on it."""

    timings: Mapping[Precision, Timing] = field(default_factory=dict)

    def timing(self, precision: Precision = PUBLISHED) -> Timing | None:
        return self.timings.get(precision)


@dataclass(frozen=True, eq=False)
class MeasuredModel(Model):
    """scored: by prompts' digest and precision."""

    found: Resolved | None = None
    scored: Mapping[tuple[str, Precision], QualityRow] = field(default_factory=dict)

    def resolved(self) -> Resolved:
        if self.found is None:
            raise ValueError(f"{self.problem or 'the candidate'} was never resolved")
        return self.found

    def exit(self, domain: str, layer: int, precision: Precision) -> ExitQuality:
        """As measured in that precision, else as published. KeyError: no row has this exit."""
        row = self.scored.get((domain, precision)) or self.scored[domain, PUBLISHED]
        found = {each.layer: each for each in row.exits}
        return found[layer]

    def depths(self, domain: str) -> tuple[int, ...]:
        """That were scored, the deepest last."""
        return tuple(each.layer for each in self.scored[domain, PUBLISHED].exits)


@dataclass(frozen=True)
class ProfiledText:
    """The prompt at `index` of the prompts that a profile scored. domain: their digest."""

    domain: str
    index: int
    prompts: int
    tokens: int
    bytes: int

    def millibits(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> int:
        """Of a row that keeps totals only, the mean of its prompts."""
        found = _measured(model).exit(self.domain, layer, precision)
        bits = found.prompt_millibits
        return bits[self.index] if bits else found.millibits // self.prompts

    def agreement(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> float:
        return _measured(model).exit(self.domain, layer, precision).agreement_percent / 100


@dataclass(frozen=True)
class AuditedText:
    """A request that a pod audited: its own bits where the audit has them; where not, what the profile says
    of a text, in proportion to this one's bits at full depth."""

    audit: AuditRow
    like: ProfiledText
    backbone: str
    """That was audited: its fingerprint."""
    full: int
    """The profile's bits of `like` at that backbone's full depth."""

    @property
    def domain(self) -> str:
        return self.like.domain

    @property
    def tokens(self) -> int:
        return self.audit.tokens

    @property
    def bytes(self) -> int:
        return self.audit.bytes

    def millibits(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> int:
        published = self._published(model, layer)
        if precision == PUBLISHED:
            return published
        like, at = self.like.millibits(model, layer, precision), self.like.millibits(model, layer)
        return round(published * like / max(1, at))

    def agreement(self, model: Model, layer: int, precision: Precision = PUBLISHED) -> float:
        found = self._audited(model, layer)
        if found is None or precision != PUBLISHED:
            return self.like.agreement(model, layer, precision)
        return found[1] / max(1, self.audit.tokens)

    def _published(self, model: Model, layer: int) -> int:
        if found := self._audited(model, layer):
            return found[0]
        scale = self.audit.full_millibits / max(1, self.full)
        return round(self.like.millibits(model, layer) * scale)

    def _audited(self, model: Model, layer: int) -> tuple[int, int] | None:
        if model.backbone.fingerprint != self.backbone:
            return None
        if layer >= model.backbone.layers:
            return self.audit.full_millibits, self.audit.tokens
        return self.audit.exits.get((model.digest, layer))


def _measured(model: Model) -> MeasuredModel:
    if not isinstance(model, MeasuredModel):
        raise TypeError("texts of profiles are worth something to measured models alone")
    return model
