"""A catalogue of twelve models: three are measured, nine turned away, each with its reason and numbers."""

from __future__ import annotations

from dataclasses import replace

from helios_operator.api.models import Model, Published
from helios_operator.api.types import Candidate, CandidateSelector, Objective
from helios_operator.decide.plan import StartJob
from helios_operator.decide.snapshot import JobKind

from tests.decide import truth
from tests.decide.builders import inline, spec, world
from tests.decide.truth import BARE_BIG, Backbone
from tests.decide.world import World

LABELS = {"task": "chat"}


def entry(name: str, **published: int) -> Model:
    made = Candidate(name, f"file:///models/{name}", weight_dtypes=("auto",), kv_cache_dtypes=("auto",))
    return Model(name, LABELS, made, Published(**published))


def catalogue() -> list[Model]:
    """Speeds as published here; `boaster` claims twice what it does."""
    good = [
        entry(f"good-{n}", tokens_per_second=speed, quality_percent=95)
        for n, speed in enumerate((100, 110, 120))
    ]
    boaster = [entry("boaster", tokens_per_second=240, quality_percent=95)]
    slow = [entry(f"slow-{n}", tokens_per_second=20 + n, quality_percent=99) for n in range(3)]
    poor = [entry(f"poor-{n}", tokens_per_second=900, quality_percent=40 + n) for n in range(3)]
    huge = [
        entry(f"huge-{n}", tokens_per_second=900, quality_percent=99, memory_mib=90_000 + n) for n in range(2)
    ]
    return [*good, *boaster, *slow, *poor, *huge]


REAL_SPEED = {"good-0": 1.0, "good-1": 0.91, "good-2": 0.83, "boaster": 0.95}
"""Time of a step, relative to the big backbone's: what is true of each."""


def catalogue_world() -> World:
    base = spec(inline(), 80, unused=BARE_BIG)
    wanted = replace(base, candidates=(), candidate_selector=CandidateSelector(LABELS, 3))
    truths: dict[object, truth.Model] = {}
    for model in catalogue():
        speed = REAL_SPEED.get(model.name, 1.2)
        backbone = Backbone(model.name, 30, layer_ns=round(900_000 * speed))
        truths[(model.candidate.uri, "", "", ())] = truth.Model(backbone)
    return World(wanted, truths, models=tuple(catalogue()))


def rejected(made: World) -> dict[str, str]:
    return {c.name: c.message for c in made.status.candidates if c.state == "Rejected"}


def test_nine_are_turned_away_each_with_its_reason() -> None:
    made = catalogue_world()
    made.step()
    reasons = rejected(made)
    assert len(reasons) == 9
    assert reasons["huge-1"] == "needs 90001 MiB at its shallowest allowed depth, 711 MiB given"
    assert reasons["poor-2"] == "published quality 42 % is below minQualityPercent 80"
    assert reasons["slow-0"] == "20 tok/s; the last on the shortlist has 110"
    assert reasons["good-0"] == "100 tok/s; the last on the shortlist has 110"


def test_only_the_shortlist_is_measured() -> None:
    made = catalogue_world()
    made.step()
    inspected = [a.job for a in made.actions if isinstance(a, StartJob) and a.job.kind is JobKind.INSPECT]
    assert {c.name for job in inspected for c in job.candidates} == {"boaster", "good-1", "good-2"}


def test_a_wrong_claim_is_corrected_by_the_profile() -> None:
    made = catalogue_world()
    made.run(60, every=1.5)
    assert made.active[0] == "good-2"
    speeds = {c.name: c.tokens_per_second for c in made.status.candidates if c.tokens_per_second}
    assert speeds["boaster"] < speeds["good-2"]


def test_selectors_match_by_all_labels() -> None:
    made = catalogue_world()
    made.models = tuple(
        replace(m, labels={"task": "code"}) if m.name == "boaster" else m for m in catalogue()
    )
    made.step()
    assert "boaster" not in {c.name for c in made.status.candidates}


def test_what_serves_keeps_its_place_when_a_faster_one_appears() -> None:
    made = catalogue_world()
    made.run(60, every=1.5)
    serving = made.active
    newcomers = tuple(entry(f"new-{n}", tokens_per_second=500, quality_percent=95) for n in range(3))
    made.truth.update(
        {
            (m.candidate.uri, "", "", ()): truth.Model(Backbone(m.name, 30, layer_ns=2_000_000))
            for m in newcomers
        }
    )
    made.models = (*made.models, *newcomers)
    made.run(60, every=3)
    assert made.active == serving


def test_a_short_inline_list_is_taken_whole() -> None:
    made = world(inline(), 80, a=BARE_BIG, b=truth.BARE_SMALL, c=truth.GENERAL)
    made.step()
    assert rejected(made) == {}


def test_a_long_inline_list_is_shortlisted_too() -> None:
    models = {f"m{n}": truth.Model(Backbone(f"m{n}", 30)) for n in range(5)}
    made = world(inline(), 80, **models)
    made.step()
    assert len(rejected(made)) == 2
    assert set(rejected(made).values()) == {"no published figures to rank it by"}


def test_quality_ranks_by_quality() -> None:
    made = catalogue_world()
    made.spec = replace(made.spec, slo=replace(made.spec.slo, optimization_type=Objective.QUALITY))
    made.deployment = replace(made.deployment, spec=made.spec)
    made.step()
    kept = {c.name for c in made.status.candidates} - set(rejected(made))
    assert kept == {"slow-0", "slow-1", "slow-2"}
