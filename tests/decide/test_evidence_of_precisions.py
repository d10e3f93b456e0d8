"""What is known of a precision's quality: from profiles, from audits in another, against either reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.results import ExitQuality
from helios_contract.serves import Precision
from helios_contract.telemetry import AS_PUBLISHED, OWN, AuditRow
from helios_operator.api.rows import QualityRow
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import LiveEvidence, ProfileEvidence

from tests.decide.test_quality import NOW, contender, row

AUTO, INT4, INT8 = Precision(), Precision("int4"), Precision("int8")
FULL, AT_24 = [100_000, 201_000, 300_500], [110_000, 219_000, 331_000]
LOSS = {AUTO: 1.0, INT8: 1.001, INT4: 1.1}
"""Bits in a precision / bits as published, in the profile."""


def held(name: str, precision: Precision, keeps: tuple[int, ...] = (24, 30), agrees: int = 90) -> QualityRow:
    """A row with bits per prompt of the exits that it keeps."""
    loss = LOSS[precision]
    made = row(name, {24: [round(b * loss) for b in AT_24], 30: [round(b * loss) for b in FULL]})
    exits = tuple(
        replace(
            each, agreement_percent=agrees, prompt_millibits=each.prompt_millibits * (each.layer in keeps)
        )
        for each in made.exits
    )
    dtypes = {"weight_dtype": precision.weight_dtype, "kv_cache_dtype": precision.kv_cache_dtype}
    return replace(made, identity=replace(made.identity, **dtypes), exits=exits)


def own(*rows: QualityRow) -> Contender:
    made = contender("own", "a", rows, "sha256:g")
    return replace(made, precisions=(AUTO, INT8, INT4))


def profiles(*rows: QualityRow) -> ProfileEvidence:
    return ProfileEvidence("sha256:p", (own(*rows),), NOW)


ALL = (held("a", AUTO), held("b", INT8), held("c", INT4))


def test_the_reference_is_full_depth_as_published() -> None:
    known = profiles(*ALL)
    me = known.contenders[0]
    assert known.quality(me, 30, AUTO).mean == 100
    assert known.quality(me, 30, INT8).mean == pytest.approx(100 / 1.001, rel=1e-4)
    assert known.quality(me, 24, INT4).mean == pytest.approx(100 * sum(FULL) / sum(AT_24) / 1.1, rel=1e-4)
    assert known.agreement(me, 30, AUTO).low == 100
    assert known.agreement(me, 30, INT8).mean == 90
    assert known.quality(me, 30, Precision("int8", "int8")) is None


def test_exits_that_gave_up_their_bits_are_known_by_those_of_the_reference() -> None:
    """As a result gives them up: below full depth, in other precisions first."""
    whole, thin = profiles(*ALL), profiles(held("a", AUTO), held("b", INT8, keeps=(30,)))
    me = thin.contenders[0]
    known, derived = whole.quality(whole.contenders[0], 24, INT8), thin.quality(me, 24, INT8)
    assert derived.mean == pytest.approx(known.mean, rel=1e-6)
    assert derived.low == pytest.approx(known.low, rel=1e-3)


def audited(precision: Precision, reference: str, live_loss: float = 1.0) -> tuple[AuditRow, ...]:
    """Nine requests; `live_loss`: bits on this traffic over what the profile expects of the precision."""
    loss = LOSS[precision] * live_loss
    rows = []
    for n in range(1, 10):
        full, exit_24 = 1_000_000 * n, round(1_120_000 * n * loss)
        own_full = round(full * loss)
        exits = {("sha256:g", 24): (exit_24, 50)}
        if reference == AS_PUBLISHED and precision != AUTO:
            exits["sha256:g", 30] = (own_full, 57)
        compared = full if reference == AS_PUBLISHED else own_full
        rows.append(AuditRow(n, 60, 240, compared, exits, reference))
    return tuple(rows)


def live(precision: Precision, reference: str, *rows: QualityRow, live_loss: float = 1.0) -> LiveEvidence:
    known = profiles(*(rows or ALL))
    return LiveEvidence(
        audited(precision, reference, live_loss), known.contenders[0], known, precision=precision
    )


@pytest.mark.parametrize("reference", [AS_PUBLISHED, OWN])
@pytest.mark.parametrize("precision", [AUTO, INT8, INT4])
def test_both_references_say_the_same_of_the_traffic_that_the_profile_is_of(
    precision: Precision, reference: str
) -> None:
    seen = live(precision, reference)
    me = seen.serving
    assert seen.quality(me, 24, precision).mean == pytest.approx(100 / 1.12 / LOSS[precision], rel=1e-4)
    assert seen.quality(me, 30, precision).mean == pytest.approx(100 / LOSS[precision], rel=1e-4)
    assert seen.quality(me, 30, AUTO).mean == 100


def test_only_the_model_as_published_shows_what_a_precision_costs_here_and_nowhere_else() -> None:
    seen = live(INT4, AS_PUBLISHED, live_loss=1.3)
    assert seen.quality(seen.serving, 30, INT4).mean == pytest.approx(100 / 1.1 / 1.3, rel=1e-4)
    blind = live(INT4, OWN, live_loss=1.3)
    assert blind.quality(blind.serving, 30, INT4).mean == pytest.approx(100 / 1.1, rel=1e-4)


def test_the_profiles_ratio_carries_over_to_what_does_not_serve() -> None:
    seen = live(INT8, AS_PUBLISHED)
    me = seen.serving
    assert seen.quality(me, 24, AUTO).mean == pytest.approx(100 / 1.12, rel=1e-4)
    assert seen.quality(me, 24, INT4).mean == pytest.approx(100 / 1.12 / 1.1, rel=1e-4)
    assert seen.quality(me, 24, Precision("int4", "int8")) is None


def test_on_other_traffic_only_to_what_is_no_worse() -> None:
    """It may be much worse there: a profile of other text does not say."""
    seen = replace(live(INT8, AS_PUBLISHED), is_other_traffic=True)
    me = seen.serving
    assert seen.quality(me, 24, AUTO) is not None
    assert seen.quality(me, 24, INT8) is not None
    assert seen.quality(me, 24, INT4) is None


def test_agreement_is_with_the_model_as_published() -> None:
    seen = live(INT8, AS_PUBLISHED)
    assert seen.agreement(seen.serving, 24, INT8).mean == pytest.approx(100 * 50 / 60)
    assert seen.agreement(seen.serving, 30, INT8).mean == pytest.approx(100 * 57 / 60)
    blind = live(INT8, OWN)
    assert blind.agreement(blind.serving, 24, INT8).mean == pytest.approx(100 * 50 / 60 * 0.9)
    assert blind.agreement(blind.serving, 30, INT8).mean == pytest.approx(90)
    assert blind.agreement(blind.serving, 30, AUTO).low == 100


def test_audits_against_their_own_tell_nothing_without_a_profile() -> None:
    blind = replace(live(INT8, OWN), profiles=None)
    assert blind.quality(blind.serving, 24, INT8) is None
    assert blind.agreement(blind.serving, 24, INT8) is None


def test_what_a_detector_starts_from_is_of_the_precision_that_serves() -> None:
    known = profiles(*ALL)
    longer = [
        replace(
            each,
            prompts=6,
            exits=tuple(
                ExitQuality(e.layer, 2 * e.millibits, 90, 50, 10, 400, e.prompt_millibits * 2)
                for e in each.exits
            ),
        )
        for each in ALL
    ]
    known = profiles(*longer)
    me = known.contenders[0]
    published, four = known.baseline(me, 24, AUTO), known.baseline(me, 24, INT4)
    assert four.mean == pytest.approx(published.mean, rel=1e-4)  # beside full depth in int4
    assert known.baseline(me, 30, INT4).mean == pytest.approx(1 / 1.1, rel=1e-4)
    assert known.baseline(me, 30, AUTO) is None
    seen, blind = (live(INT4, reference) for reference in (AS_PUBLISHED, OWN))
    assert seen.baseline(seen.serving, 24, INT4).mean == pytest.approx(1 / 1.12, rel=1e-4)
    assert seen.baseline(seen.serving, 24, INT4) == blind.baseline(blind.serving, 24, INT4)
    assert seen.baseline(seen.serving, 30, INT4).mean == pytest.approx(1 / 1.1, rel=1e-4)
    assert blind.baseline(blind.serving, 30, INT4) is None
    assert seen.baseline(seen.serving, 24, AUTO) is None
