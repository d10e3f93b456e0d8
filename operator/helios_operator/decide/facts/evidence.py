"""What is known about quality: from profiles (the same prompts for all), or from live audits (one backbone
only).

Built by `reassess` and `select`, asked by `options`. Both kinds answer the same three questions, so that
whoever weighs options does not care where a figure came from; `source` says it to people. It must not decide
what is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Protocol

from helios_contract.limits import Baseline
from helios_contract.results import ExitQuality
from helios_contract.telemetry import AuditRow

from helios_operator.api.rows import QualityRow
from helios_operator.decide.facts import quality
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.policy import DEFAULT, Policy


class Evidence(Protocol):
    """Answers None where it knows nothing."""

    @property
    def source(self) -> str: ...

    @property
    def samples(self) -> int: ...

    def quality(self, contender: Contender, layer: int) -> Estimate | None: ...

    def agreement(self, contender: Contender, layer: int) -> Estimate | None: ...

    def baseline(self, contender: Contender, layer: int) -> Baseline | None: ...


@dataclass(frozen=True)
class ProfileEvidence:
    """Quality rows of the contenders on the same prompts. The reference is the best of them at full depth."""

    prompts_digest: str
    contenders: tuple[Contender, ...]
    now: datetime
    policy: Policy = DEFAULT

    @property
    def source(self) -> str:
        return f"{self.samples} profiled prompts, {age(self.completed, self.now)} old"

    @property
    def completed(self) -> datetime | None:
        """Of the oldest row: as fresh as its weakest part."""
        times = [row.completed for row in self._rows() if row.completed]
        return min(times, default=None)

    @property
    def samples(self) -> int:
        return min((row.prompts for row in self._rows()), default=0)

    @property
    def reference(self) -> tuple[Contender, QualityRow] | None:
        measured = [(c, row) for c in self.contenders if (row := self._row(c)) and row.exits]
        return min(measured, key=lambda pair: (pair[1].exits[-1].millibits, pair[0].key), default=None)

    def quality(self, contender: Contender, layer: int) -> Estimate | None:
        row, reference = self._row(contender), self.reference
        found = _exit(row, layer)
        if row is None or reference is None or found is None:
            return None
        return _ratio(reference[1].exits[-1], found, row, self.policy)

    def agreement(self, contender: Contender, layer: int) -> Estimate | None:
        row = self._row(contender)
        found = _exit(row, layer)
        if row is None or found is None:
            return None
        if found is row.exits[-1]:
            return quality.exactly(100.0, row.prompts)
        return quality.share(found.agreement_percent / 100 * row.tokens, row.tokens, self.policy)

    def baseline(self, contender: Contender, layer: int) -> Baseline | None:
        row = self._row(contender)
        found = _exit(row, layer)
        if row is None or found is None or found is row.exits[-1]:
            return None
        full = row.exits[-1].prompt_millibits
        if len(full) != len(found.prompt_millibits):
            return None
        return quality.baseline(full, found.prompt_millibits, self.policy)

    def stored_ratio(self, contender: Contender) -> Estimate | None:
        """Reference bits / the contender's own full-depth bits: what live audits, which see one backbone,
        lack."""
        row, reference = self._row(contender), self.reference
        if row is None or reference is None or not row.exits:
            return None
        if same_backbone(reference[0], contender):
            return quality.exactly(100.0, row.prompts)
        return _ratio(reference[1].exits[-1], row.exits[-1], row, self.policy)

    def bits_per_byte(self, contender: Contender) -> list[float]:
        """Of each prompt at the contender's full depth, in millibits."""
        row = self._row(contender)
        if row is None or not row.exits:
            return []
        bits = row.exits[-1].prompt_millibits
        return [b / n for b, n in zip(bits, row.prompt_bytes, strict=False) if n]

    def _row(self, contender: Contender) -> QualityRow | None:
        return contender.quality_on(self.prompts_digest)

    def _rows(self) -> list[QualityRow]:
        return [row for c in self.contenders if (row := self._row(c))]


@dataclass(frozen=True)
class LiveEvidence:
    """Audited requests of the pods that serve `serving`'s backbone: its bits at every exit under every
    bundle, and at full depth, on the traffic itself. Other backbones are unknown to it."""

    audits: tuple[AuditRow, ...]
    serving: Contender
    profiles: ProfileEvidence | None
    """For the ratio of the reference to the own full depth."""
    policy: Policy = DEFAULT

    @property
    def source(self) -> str:
        text = f"{self.samples} audited requests"
        if self.profiles and self._own_ratio().mean != 100:
            text += f" and a reference measured {age(self.profiles.completed, self.profiles.now)} ago"
        return text

    @property
    def samples(self) -> int:
        return len(self.audits)

    def quality(self, contender: Contender, layer: int) -> Estimate | None:
        if not same_backbone(self.serving, contender):
            return None
        if _is_full(contender, layer):
            return self._own_ratio() if self.audits else None
        pairs = self._pairs(contender, layer)
        if len(pairs) < min(self.policy.min_audits, len(self.audits)):
            return None
        full, bits = [full for full, _ in pairs], [bits for _, bits in pairs]
        return quality.ratio(full, bits, self.policy).times(self._own_ratio())

    def agreement(self, contender: Contender, layer: int) -> Estimate | None:
        if not same_backbone(self.serving, contender):
            return None
        if _is_full(contender, layer):
            return quality.exactly(100.0, self.samples)
        where = _where(contender, layer)
        scored = [row for row in self.audits if where in row.exits]
        if not scored:
            return None
        agreeing = sum(row.exits[where][1] for row in scored)
        return quality.share(agreeing, sum(row.tokens for row in scored), self.policy)

    def baseline(self, contender: Contender, layer: int) -> Baseline | None:
        if not same_backbone(self.serving, contender) or _is_full(contender, layer):
            return None
        pairs = self._pairs(contender, layer)
        return quality.baseline([full for full, _ in pairs], [bits for _, bits in pairs], self.policy)

    def _pairs(self, contender: Contender, layer: int) -> list[tuple[int, int]]:
        """(own full bits, exit bits) of the requests that were scored there."""
        where = _where(contender, layer)
        return [(row.full_millibits, row.exits[where][0]) for row in self.audits if where in row.exits]

    def _own_ratio(self) -> Estimate:
        stored = self.profiles.stored_ratio(self.serving) if self.profiles else None
        return stored or quality.exactly(100.0, self.samples)


def same_backbone(one: Contender, other: Contender) -> bool:
    return bool(one.resolved and other.resolved and one.resolved.backbone == other.resolved.backbone)


def newest_common(
    contenders: Sequence[Contender], now: datetime, policy: Policy = DEFAULT
) -> ProfileEvidence | None:
    """The newest prompts on which every contender that was ever measured has a row."""
    measured = [c for c in contenders if any(row.exits for row in c.qualities)]
    if not measured:
        return None
    for digest in _digests(measured):
        if all(c.quality_on(digest) for c in measured):
            return ProfileEvidence(digest, tuple(measured), now, policy)
    return None


def age(since: datetime | None, now: datetime) -> str:
    """In one unit, as a person says it."""
    if since is None:
        return "unknown time"
    seconds = max(0, round((now - since).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _digests(contenders: Iterable[Contender]) -> list[str]:
    """Newest first."""
    rows = {
        (row.completed, row.identity.prompts_digest)
        for c in contenders
        for row in c.qualities
        if row.completed
    }
    return list(dict.fromkeys(digest for _, digest in sorted(rows, reverse=True)))


def _exit(row: QualityRow | None, layer: int) -> ExitQuality | None:
    return next((found for found in row.exits if found.layer == layer), None) if row else None


def _ratio(reference: ExitQuality, found: ExitQuality, row: QualityRow, policy: Policy) -> Estimate:
    above, below = reference.prompt_millibits, found.prompt_millibits
    if above and len(above) == len(below):
        return quality.ratio(above, below, policy)
    if reference.millibits == found.millibits:
        return quality.exactly(100.0, row.prompts)
    deviation = _deviation(row, policy)
    return quality.ratio_of_totals(reference.millibits, found.millibits, row.prompts, deviation, policy)


def _deviation(row: QualityRow, policy: Policy) -> float:
    """Relative deviation between texts, from the exits of the row that kept per-text figures."""
    full = row.exits[-1].prompt_millibits
    known = [
        quality.ratio(full, e.prompt_millibits, policy).relative_error * sqrt(row.prompts)
        for e in row.exits[:-1]
        if full and len(e.prompt_millibits) == len(full) > 1
    ]
    return max([*known, policy.assumed_relative_deviation])


def _where(contender: Contender, layer: int) -> tuple[str, int]:
    return (contender.resolved.exits_digest if contender.resolved else "", layer)


def _is_full(contender: Contender, layer: int) -> bool:
    return bool(contender.resolved and contender.resolved.num_layers == layer)
