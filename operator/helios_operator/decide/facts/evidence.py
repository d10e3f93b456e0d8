"""What is known about quality: from profiles (the same prompts for all), or from live audits (one backbone
only).

Built by `reassess` and `select`, asked by `options`. Both kinds answer the same three questions, so that
whoever weighs options does not care where a figure came from; `source` says it to people. It must not decide
what is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt
from typing import Protocol

from helios_contract.limits import Baseline
from helios_contract.results import ExitQuality
from helios_contract.serves import REFERENCE, Precision
from helios_contract.telemetry import AS_PUBLISHED, AuditRow

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

    def quality(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None: ...

    def agreement(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None: ...

    def baseline(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Baseline | None: ...


@dataclass(frozen=True)
class ProfileEvidence:
    """Quality rows of the contenders on the same prompts. The reference is the best of them at full depth, as
    published."""

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

    def quality(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Estimate | None:
        row, reference = self._row(contender, precision), self.reference
        found = _exit(row, layer)
        if row is None or reference is None or found is None:
            return None
        if precision != REFERENCE and not found.prompt_millibits:
            published = self.quality(contender, layer)
            ratio = self.between(contender, layer, REFERENCE, precision)
            return published.times(ratio) if published and ratio else None
        return _ratio(reference[1].exits[-1], found, row, self.policy)

    def agreement(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None:
        """With full depth as published."""
        row = self._row(contender, precision)
        found = _exit(row, layer)
        if row is None or found is None:
            return None
        if found is row.exits[-1] and precision == REFERENCE:
            return quality.exactly(100.0, row.prompts)
        return quality.share(found.agreement_percent / 100 * row.tokens, row.tokens, self.policy)

    def baseline(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Baseline | None:
        """What a detector compares an exit with is full depth in its own precision, and that with full depth
        as published, of which itself there is none."""
        row, published = self._row(contender, precision), self._row(contender)
        found = _exit(row, layer)
        if row is None or published is None or found is None or found is published.exits[-1]:
            return None
        full = (published if found is row.exits[-1] else row).exits[-1].prompt_millibits
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

    def between(self, contender: Contender, layer: int, of: Precision, to: Precision) -> Estimate | None:
        """Bits in one precision / bits in another, at a depth."""
        row, found = self._row(contender, to), _exit(self._row(contender, to), layer)
        base = _exit(self._row(contender, of), layer)
        if row is None or found is None or base is None:
            return None
        return _ratio(base, found, row, self.policy, self._spread(contender, of, to))

    def _spread(self, contender: Contender, of: Precision, to: Precision) -> float | None:
        """Relative deviation between texts of the ratio of two precisions, at full depth, whose bits per
        prompt are the last that a result gives up."""
        rows = self._row(contender, of), self._row(contender, to)
        full = [row.exits[-1].prompt_millibits for row in rows if row and row.exits]
        if len(full) < 2 or len(full[0]) != len(full[1]) or len(full[0]) < 2:
            return None
        return quality.ratio(full[0], full[1], self.policy).relative_error * sqrt(len(full[0]))

    def bits_per_byte(self, contender: Contender) -> list[float]:
        """Of each prompt at the contender's full depth, in millibits."""
        row = self._row(contender)
        if row is None or not row.exits:
            return []
        bits = row.exits[-1].prompt_millibits
        return [b / n for b, n in zip(bits, row.prompt_bytes, strict=False) if n]

    def _row(self, contender: Contender, precision: Precision = REFERENCE) -> QualityRow | None:
        return contender.quality_on(self.prompts_digest, precision)

    def _rows(self) -> list[QualityRow]:
        return [row for c in self.contenders for p in {REFERENCE, *c.precisions} if (row := self._row(c, p))]


@dataclass(frozen=True)
class LiveEvidence:
    """Audited requests of the pods that serve `serving`'s backbone in `precision`: its bits at every exit
    under every bundle, and at full depth, on the traffic itself. Other backbones are unknown to it; how
    another precision compares at the same depth the profile knows."""

    audits: tuple[AuditRow, ...]
    serving: Contender
    profiles: ProfileEvidence | None
    """For the ratio of the reference to the own full depth, and for those between precisions."""
    policy: Policy = DEFAULT
    precision: Precision = REFERENCE
    is_other_traffic: bool = False
    """Than the profiles are of: a precision that they call worse may be much worse here."""

    @property
    def source(self) -> str:
        text = f"{self.samples} audited requests"
        if self.profiles and self._own_ratio().mean != 100:
            text += f" and a reference measured {age(self.profiles.completed, self.profiles.now)} ago"
        return text

    @property
    def samples(self) -> int:
        return len(self.audits)

    def quality(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Estimate | None:
        if not same_backbone(self.serving, contender):
            return None
        if _is_full(contender, layer) and precision == REFERENCE:
            return self._own_ratio() if self.audits else None
        seen = self._seen(contender, layer)
        if seen is None or precision == self.precision:
            return seen
        ratio = self.profiles.between(contender, layer, self.precision, precision) if self.profiles else None
        if ratio is None or (self.is_other_traffic and ratio.mean < 100):
            return None
        return seen.times(ratio)

    def agreement(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None:
        if not same_backbone(self.serving, contender):
            return None
        if _is_full(contender, layer) and precision == REFERENCE:
            return quality.exactly(100.0, self.samples)
        if precision != self.precision:
            return self.profiles.agreement(contender, layer, precision) if self.profiles else None
        scored = [(row.tokens, agreeing) for row, _, _, agreeing in self._scored(contender, layer)]
        if not scored and self.profiles and self.audits and _is_full(contender, layer):
            return self.profiles.agreement(contender, layer, precision)
        if not scored:
            return None
        return quality.share(
            sum(each for _, each in scored), sum(tokens for tokens, _ in scored), self.policy
        )

    def baseline(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Baseline | None:
        """In the precision that serves alone: what lies between requests is not known of another."""
        if not same_backbone(self.serving, contender) or precision != self.precision:
            return None
        if _is_full(contender, layer) and precision == REFERENCE:
            return None
        full, bits = self._pairs(contender, layer)
        if not _is_full(contender, layer):
            full = [row.own_full(_depth(contender)) for row, *_ in self._scored(contender, layer)]
        return quality.baseline(full, bits, self.policy)

    @property
    def bits_per_byte(self) -> list[float]:
        """Of each request at full depth as published, in millibits: which texts come."""
        own = self._own_full[0] or 1.0
        scaled = [(row, 1.0 if row.reference == AS_PUBLISHED else own) for row in self.audits]
        return [row.full_millibits * scale / row.bytes for row, scale in scaled if row.bytes]

    def _seen(self, contender: Contender, layer: int) -> Estimate | None:
        """In the precision that serves."""
        full, bits = self._pairs(contender, layer)
        if len(full) >= min(self.policy.min_audits, len(self.audits)):
            return quality.ratio(full, bits, self.policy).times(self._own_ratio())
        if _is_full(contender, layer) and self.profiles and self.audits:
            return self.profiles.quality(contender, layer, self.precision)
        return None

    def _pairs(self, contender: Contender, layer: int) -> tuple[list[float], list[float]]:
        """Bits of full depth as published, and of the exit, of the requests that were scored there."""
        scored = list(self._scored(contender, layer))
        return [full for _, full, _, _ in scored], [bits for _, _, bits, _ in scored]

    def _scored(self, contender: Contender, layer: int) -> Iterator[tuple[AuditRow, float, float, float]]:
        """(request, bits of full depth as published, bits of the exit, tokens that agree with that full
        depth). Where a pod compared with its own full depth, the profile says how that compares; without one
        such a request tells nothing, and of that full depth never."""
        own, agreement = self._own_full
        for row in self.audits:
            found = _exit_of(row, contender, layer)
            is_own = row.reference != AS_PUBLISHED and self.precision != REFERENCE
            if found is None or (is_own and own is None):
                continue
            bits, agreeing = found
            yield (
                row,
                row.full_millibits * own if is_own and own else row.full_millibits,
                bits,
                agreeing * agreement if is_own else agreeing,
            )

    @property
    def _own_full(self) -> tuple[float | None, float]:
        """Bits of full depth as published / in the precision that serves, and the share of tokens that
        agree; by the profile."""
        depth, profiles = _depth(self.serving), self.profiles
        if self.precision == REFERENCE:
            return 1.0, 1.0
        ratio = profiles.between(self.serving, depth, REFERENCE, self.precision) if profiles else None
        agreement = profiles.agreement(self.serving, depth, self.precision) if profiles else None
        return (ratio.mean / 100 if ratio else None, agreement.mean / 100 if agreement else 1.0)

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


def _ratio(
    reference: ExitQuality,
    found: ExitQuality,
    row: QualityRow,
    policy: Policy,
    spread: float | None = None,
) -> Estimate:
    """`spread`: the relative deviation between texts, where it is known from elsewhere."""
    above, below = reference.prompt_millibits, found.prompt_millibits
    if above and len(above) == len(below):
        return quality.ratio(above, below, policy)
    if reference.millibits == found.millibits:
        return quality.exactly(100.0, row.prompts)
    deviation = _deviation(row, policy) if spread is None else spread
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


def _exit_of(row: AuditRow, contender: Contender, layer: int) -> tuple[int, int] | None:
    """(bits, tokens that agree) at an exit; at full depth, in the precision that serves, whatever the
    heads."""
    if not _is_full(contender, layer):
        return row.exits.get(_where(contender, layer))
    return next((found for (_, depth), found in row.exits.items() if depth == layer), None)


def _where(contender: Contender, layer: int) -> tuple[str, int]:
    return (contender.resolved.exits_digest if contender.resolved else "", layer)


def _depth(contender: Contender) -> int:
    return contender.resolved.num_layers if contender.resolved else 0


def _is_full(contender: Contender, layer: int) -> bool:
    return bool(contender.resolved) and layer == _depth(contender)
