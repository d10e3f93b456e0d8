"""The estimators: unbiased, honest about how sure they are, and quick to say when they know nothing."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from math import inf

import pytest
from helios_contract.results import ExitQuality, Resolved
from helios_contract.telemetry import AuditRow
from helios_operator.api.rows import QualityIdentity, QualityRow, RowPhase
from helios_operator.api.types import Candidate
from helios_operator.decide.facts import quality
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import LiveEvidence, ProfileEvidence, age
from helios_operator.decide.facts.quality import Estimate
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
bits = st.lists(st.integers(1_000, 1_000_000), min_size=2, max_size=60)


@given(bits, st.integers(50, 99))
def test_texts_that_all_lose_the_same_share_leave_no_doubt(full: list[int], percent: int) -> None:
    estimate = quality.ratio([b * percent for b in full], [b * 100 for b in full])
    assert estimate.mean == pytest.approx(percent)
    assert estimate.low == pytest.approx(percent)
    assert estimate.high == pytest.approx(percent)


@given(bits, bits)
def test_bounds_enclose_the_mean(some: list[int], others: list[int]) -> None:
    size = min(len(some), len(others))
    estimate = quality.ratio(some[:size], others[:size])
    assert 0 <= estimate.low <= estimate.mean <= estimate.high


def test_bounds_cover_the_truth_about_as_often_as_they_say() -> None:
    generator, misses = random.Random(1), 0
    for _ in range(400):
        full = [generator.lognormvariate(12, 0.4) for _ in range(16)]
        seen = quality.ratio(full, [b / generator.gauss(0.9, 0.05) for b in full])
        misses += seen.low > 90
    assert misses / 400 < 0.14


def test_one_text_bounds_nothing() -> None:
    assert quality.ratio([90], [100]) == Estimate(90.0, 0.0, inf, 1)
    assert quality.ratio([], []).samples == 0


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_share_stays_within_0_and_100(hits: int, tokens: int) -> None:
    estimate = quality.share(min(hits, tokens), tokens)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 100


def test_students_quantiles_are_those_of_the_tables() -> None:
    table = {1: 3.078, 2: 1.886, 3: 1.638, 5: 1.476, 8: 1.397, 30: 1.310, 1000: 1.282}
    for freedom, value in table.items():
        assert quality.student(0.90, freedom) == pytest.approx(value, rel=0.02)


@given(st.floats(0, 100), st.integers(0, 100))
def test_a_told_percentage_is_never_more_than_it_is(percent: float, target: int) -> None:
    assert percent - 1 < quality.whole(percent) <= percent + 1e-6
    assert percent - 0.11 < quality.tenth(percent) <= percent + 1e-6
    if percent < target - 1e-6:
        assert quality.tenth(percent) < target


def test_other_texts_are_told_apart_and_the_same_are_not() -> None:
    generator = random.Random(3)

    def sample(centre: float) -> list[float]:
        return [generator.lognormvariate(centre, 0.25) for _ in range(40)]

    assert quality.are_other_texts(sample(0.0), sample(-0.5))
    assert not any(quality.are_other_texts(sample(0.0), sample(0.0)) for _ in range(300))
    assert not quality.are_other_texts(sample(0.0)[:5], sample(-0.5))


def contender(name: str, backbone: str, rows: tuple[QualityRow, ...], digest: str = "") -> Contender:
    resolved = Resolved(
        "rev1", backbone, 30, 2048, digest, "mlp" if digest else "bare", (24,) if digest else ()
    )
    return Contender(Candidate(name, f"file:///{backbone}"), resolved=resolved, qualities=rows)


def row(name: str, exits: dict[int, list[int]], totals_only: bool = False) -> QualityRow:
    return QualityRow(
        name=name,
        identity=QualityIdentity("file:///x", "rev1", "", "sha256:p"),
        phase=RowPhase.COMPLETE,
        completed=NOW,
        prompts=len(next(iter(exits.values()))),
        tokens=600,
        exits=tuple(
            ExitQuality(layer, sum(values), 80, 50, 10, 400, () if totals_only else tuple(values))
            for layer, values in exits.items()
        ),
    )


def test_the_reference_is_the_best_at_full_depth() -> None:
    weak = contender("weak", "b", (row("w", {30: [110, 220, 330]}),))
    best = contender("best", "a", (row("b", {24: [105, 212, 310], 30: [100, 200, 300]}),), "sha256:g")
    profiles = ProfileEvidence("sha256:p", (weak, best), NOW)
    assert profiles.reference is not None
    assert profiles.reference[0].name == "best"
    assert profiles.quality(weak, 30).mean == pytest.approx(100 * 600 / 660)  # type: ignore[union-attr]
    assert profiles.quality(best, 30) == Estimate(100, 100, 100, 3)
    assert profiles.quality(best, 27) is None


def test_a_row_with_totals_only_is_believed_less() -> None:
    precise = contender("p", "a", (row("p", {24: [105, 212, 310], 30: [100, 200, 300]}),), "sha256:g")
    coarse = contender(
        "c", "a", (row("c", {24: [105, 212, 310], 30: [100, 200, 300]}, totals_only=True),), "sha256:g"
    )
    one = ProfileEvidence("sha256:p", (precise,), NOW).quality(precise, 24)
    other = ProfileEvidence("sha256:p", (coarse,), NOW).quality(coarse, 24)
    assert one
    assert other
    assert one.mean == pytest.approx(other.mean)
    assert other.low < one.low


def audits(exit_bits: int) -> tuple[AuditRow, ...]:
    return tuple(
        AuditRow(n, 60, 240, 1000 * (n + 1), {("sha256:g", 24): (exit_bits * (n + 1), 50)}) for n in range(8)
    )


def test_live_quality_is_own_ratio_times_the_stored_one() -> None:
    own = contender("own", "a", (row("o", {24: [12, 24], 30: [10, 20]}),), "sha256:g")
    better = contender("better", "b", (row("b", {30: [8, 16]}),))
    live = LiveEvidence(audits(1250), own, ProfileEvidence("sha256:p", (own, better), NOW))
    assert live.quality(own, 24).mean == pytest.approx(100 * 0.8 * 0.8)  # type: ignore[union-attr]
    assert live.quality(own, 30).mean == pytest.approx(80)  # type: ignore[union-attr]
    assert live.quality(better, 30) is None
    assert "measured 0 s ago" in live.source


def test_live_quality_of_the_reference_itself_needs_no_profile() -> None:
    own = contender("own", "a", (), "sha256:g")
    live = LiveEvidence(audits(1250), own, None)
    assert live.quality(own, 24).mean == pytest.approx(80)  # type: ignore[union-attr]
    assert live.quality(own, 30).mean == 100  # type: ignore[union-attr]
    assert live.agreement(own, 24).mean == pytest.approx(100 * 50 / 60)  # type: ignore[union-attr]


def test_ages_are_said_in_one_unit() -> None:
    said = [age(NOW, NOW.replace(hour=hour, minute=minute)) for hour, minute in ((6, 1), (6, 5), (9, 0))]
    assert said == ["60 s", "5 min", "3 h"]
    assert age(None, NOW) == "unknown time"
