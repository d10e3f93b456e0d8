"""What deployments tell of the catalogue: found or not, and corrected by which profile; said once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from helios_operator.api.models import Model, Published
from helios_operator.api.status import ModelStatus
from helios_operator.api.types import Candidate, CandidateSelector

from tests.decide import truth
from tests.decide.builders import inline, spec
from tests.decide.truth import BARE_BIG, BARE_SMALL
from tests.decide.world import World

LABELS = {"task": "chat"}
NAMES = ("big", "small")


def entry(name: str, generation: int = 1) -> Model:
    return Model(name, LABELS, Candidate(name, f"file:///models/{name}"), Published(), generation=generation)


def chooser(models: tuple[Model, ...] = tuple(map(entry, NAMES)), **truths: truth.Model) -> World:
    """A deployment that selects both entries."""
    base = spec(inline(), 80, unused=BARE_BIG)
    wanted = replace(base, candidates=(), candidate_selector=CandidateSelector(LABELS, 3))
    real = {"big": BARE_BIG, "small": BARE_SMALL} | truths
    keyed = {(f"file:///models/{name}", "", "", ()): model for name, model in real.items()}
    return World(wanted, keyed, models=models)


def status(made: World, name: str) -> ModelStatus:
    return next(model.status for model in made.models if model.name == name)


def said(made: World, name: str) -> tuple[str, str, str]:
    (condition,) = status(made, name).conditions
    return condition.type, condition.reason, condition.message


def test_what_inspect_finds_is_said_of_the_entry() -> None:
    broken = truth.Model(BARE_BIG.backbone, problem="file:///models/big: no such directory; check the uri")
    made = chooser(big=broken)
    made.step()
    assert status(made, "big") == status(made, "small") == ModelStatus()
    made.run(10)
    assert said(made, "small") == ("Resolved", "RevisionFound", "rev1")
    assert said(made, "big") == ("Resolved", "RevisionNotFound", broken.problem)
    assert status(made, "big").observed_generation == 1
    assert [c.status for name in NAMES for c in status(made, name).conditions] == ["False", "True"]


def test_the_first_profile_corrects_and_keeps_its_place() -> None:
    made = chooser()
    made.run(60)
    corrected = status(made, "small").corrected_by
    row = made.rows[corrected or ""]
    assert row.name.startswith("q-")
    assert row.identity.model_uri == "file:///models/small"
    newer = replace(row, name="q-newer", completed=made.now)
    made.rows[newer.name] = newer
    made.step()
    assert status(made, "small").corrected_by == corrected
    del made.rows[corrected or ""]
    made.step()
    assert status(made, "small").corrected_by == "q-newer"


def test_nothing_new_is_nothing_to_write() -> None:
    made = chooser()
    made.run(60)
    assert status(made, "big").corrected_by
    for _ in range(40):
        assert made.look(2).models == ()
        made.step(2)


def test_of_two_deployments_the_newest_inspect_has_the_word() -> None:
    """An older one does not answer back; passes of both come to rest."""
    older = chooser()
    older.run(60)
    moved = chooser(older.models, small=BARE_SMALL, big=truth.Model(BARE_BIG.backbone, problem="is gone"))
    moved.now = older.now
    moved.run(60)
    assert said(moved, "big") == ("Resolved", "RevisionNotFound", "is gone")
    older.now, older.models = moved.now, moved.models
    for _ in range(10):
        for one, other in ((older, moved), (moved, older)):
            plan = one.look(1)
            assert plan.models == ()
            one.apply(plan)
            other.models = one.models


def test_a_job_that_is_gone_is_remembered_by_its_deployment() -> None:
    """The pass that saw it may have ended before it wrote; and an entry may have come later."""
    made = chooser()
    made.run(60)
    made.jobs.clear()
    made.models = tuple(map(entry, NAMES))
    made.step()
    assert said(made, "big") == ("Resolved", "RevisionFound", "rev1")
    assert status(made, "big").corrected_by


def test_an_edited_entry_is_told_anew() -> None:
    made = chooser()
    made.run(60)
    before = status(made, "big").conditions[0].last_transition_time
    edited = replace(made.models[0], generation=2, published=Published(quality_percent=95))
    made.models = (edited, made.models[1])
    made.step()
    assert status(made, "big").observed_generation == 2
    assert status(made, "big").conditions[0].last_transition_time == before  # it says the same
    other = replace(made.models[0], generation=3, candidate=Candidate("big", "file:///models/other"))
    made.models = (other, made.models[1])
    made.truth["file:///models/other", "", "", ()] = truth.Model(BARE_BIG.backbone, problem="is not there")
    made.step()
    assert status(made, "big").observed_generation == 2  # until somebody has looked
    made.run(20)
    assert said(made, "big") == ("Resolved", "RevisionNotFound", "is not there")
    assert made.now - status(made, "big").conditions[0].last_transition_time < timedelta(seconds=21)


def test_entries_that_nobody_uses_are_left_alone() -> None:
    unused = replace(entry("unused"), labels={"task": "other"})
    made = chooser((*map(entry, NAMES), unused))
    made.run(30)
    assert status(made, "unused") == ModelStatus()
