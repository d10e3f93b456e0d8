"""Another precision on the same backbone: one change of its own, told to the running pods; what it costs,
when it is made, and when it is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from helios_contract.serves import Precision
from helios_operator.api import parse, serialize
from helios_operator.api.types import Decision, WorkloadSpec
from helios_operator.decide import weigh
from helios_operator.decide.plan import CreateRevision, StartJob, WriteLimits
from helios_operator.decide.weigh import remedies
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.remedies import Effort
from helios_operator.decide.weigh.strategy import Way

from tests.decide.builders import inline, selected, world
from tests.decide.test_precisions import AUTO, BOTH, INT8, holding, serving
from tests.decide.truth import BARE_SMALL, FRAIL, GENERAL, PROSE
from tests.decide.world import World
from tests.sizes import LONG

LOST_ROOM = re.compile("; the largest request falls from .* tokens of prompt and output")

INT4 = Precision("int4")


def on_prose(audits_own: bool = False) -> World:
    """Served in four bits at full depth."""
    made = holding(world(min_quality=96, frail=FRAIL), "auto int4", "auto")
    made.audits_own = audits_own
    selected(made)
    assert serving(made) == (30, "int4/auto")
    return made


# -- a change of its own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("audits_own", [False, True])
def test_what_is_poor_on_other_traffic_gives_way_in_the_running_pods(audits_own: bool) -> None:
    """Whether pods compare with the model as published, or with the profile's word for it."""
    made = on_prose(audits_own)
    before = list(made.actions)
    made.serve(400, "code")
    made_since = made.actions[len(before) :]
    assert made.kinds == ["Select", "Requantize"]
    assert serving(made)[1] == "auto/auto"
    assert made.lost == 0
    assert not [action for action in made_since if isinstance(action, CreateRevision)]
    writes = [a for a in made_since if isinstance(a, WriteLimits) and a.limits.precision == AUTO]
    assert len(writes) == 1
    assert "frail at 30 in int4/auto has quality 8" in writes[0].why.message
    assert "Requantize to frail at 30 in auto/auto" in writes[0].why.message
    assert list(made.revisions) == [1]
    done = made.status.history[-1]
    assert (done.kind, done.from_.precision, done.to.precision) == (Decision.REQUANTIZE, INT4, AUTO)


def test_it_is_announced_and_comes_to_an_end_like_any_change() -> None:
    made = on_prose()
    targets = []
    made.watch.append(lambda w, s, p: targets.append(p.status.target and p.status.target.precision))
    events = []
    made.watch.append(lambda w, s, p: events.extend(event.message for event in p.events))
    made.serve(200, "code")
    assert AUTO in targets
    assert targets[-1] is None
    assert "Requantize to frail at 30 layers in auto/auto" in events
    assert made.status.rollout.phase == "Completed"
    assert made.status.active.timing != made.status.history[-1].from_.timing


def test_a_pod_that_refuses_keeps_what_it_serves_and_is_left_in_peace() -> None:
    made = on_prose()
    made.refuses = lambda limits: "no memory to hold it" if limits.precision == AUTO else ""
    made.serve(120, "code")
    assert serving(made) == (30, "int4/auto")
    (document,) = (revision.limits for revision in made.revisions.values())
    assert document.precision == INT4
    failed = [entry for entry in made.status.history if entry.result == "Failed"]
    assert failed
    assert all(entry.kind is Decision.REQUANTIZE for entry in failed)
    assert "no memory to hold it" in failed[0].message
    assert made.status.reassessment.backoff_seconds >= 30
    made.refuses = lambda limits: ""
    made.serve(300, "code")
    assert serving(made)[1] == "auto/auto"


# -- what it costs -------------------------------------------------------------------------------------------


def options() -> dict[tuple[str, int, Precision], Option]:
    made = holding(world(inline(), 60, general=GENERAL, small=BARE_SMALL), "auto int8", "auto int8")
    made.run(60)
    return {(o.contender.name, o.layer_budget, o.precision): o for o in weigh(made.snapshot(), made.now)[1]}


def test_dearer_than_growing_and_cheaper_than_switching() -> None:
    known = options()
    current = known["general", 24, AUTO]
    grow, same, other = (known["general", 30, AUTO], known["general", 24, INT8], known["small", 26, AUTO])
    deeper, shallower = known["general", 30, BOTH], known["general", 24, BOTH]
    kinds = [remedies.kind_of(option, current) for option in (grow, same, other, deeper, shallower)]
    assert kinds == [Decision.GROW, *[Decision.REQUANTIZE] * 1, Decision.SWITCH, *[Decision.REQUANTIZE] * 2]
    assert remedies.kind_of(current, current) is Decision.KEEP
    efforts = [remedies.effort(option, current) for option in (current, grow, same, other)]
    assert efforts == sorted(Effort)
    costs = [
        remedies.cost_seconds(option, current, way, WorkloadSpec(isl=64, osl=48), ())
        for option, way in ((grow, Way.LIMITS), (same, Way.LIMITS), (other, Way.SURGE))
    ]
    assert costs[0] < costs[1] < costs[2]


def test_its_cost_is_the_layers_as_published_and_the_prefill_of_what_runs() -> None:
    """The weights that it makes are smaller than what it reads for them."""
    known = options()
    current, new = known["general", 24, AUTO], known["general", 27, INT8]
    published = current.timing.memory
    read = (published.fixed_bytes + 27 * published.layer_bytes) / 200e6
    rows = new.performance.expected.rows
    prefill = rows * (64 + 24) * 27 * new.timing.fit.per_layer_row_ns / 1e9
    cost = remedies.cost_seconds(new, current, Way.LIMITS, WorkloadSpec(isl=64, osl=48), ())
    assert cost == pytest.approx(0.5 + read + prefill)
    keys = known["general", 27, Precision("auto", "int8")]
    added = 3 * published.layer_bytes / 200e6
    prefill = keys.performance.expected.rows * 88 * 27 * keys.timing.fit.per_layer_row_ns / 1e9
    cost = remedies.cost_seconds(keys, current, Way.LIMITS, WorkloadSpec(isl=64, osl=48), ())
    assert cost == pytest.approx(0.5 + added + prefill), "weights stay"


# -- when it is made -----------------------------------------------------------------------------------------


def upgraded(**rules: object) -> World:
    """Served as published by a release that knew nothing else, whose status and rows stand."""
    old = selected(holding(world(inline(), 97, general=GENERAL), "auto", "auto"))
    made = holding(world(inline(), 97, general=GENERAL))
    made.spec = replace(made.spec, reassessment=replace(made.spec.reassessment, **rules))
    written = serialize.status(old.status)
    for served in (written["active"], *(entry["to"] for entry in written.get("history", ()))):
        del served["weightDtype"], served["kvCacheDtype"]
    made.deployment = replace(made.deployment, spec=made.spec, status=parse.deployment_status(written))
    made.rows, made.revisions, made.now = old.rows, old.revisions, old.now
    for revision in made.revisions.values():
        for pod in revision.pods:
            pod.world = made
    return made


def test_an_update_of_the_operator_changes_nothing_by_itself() -> None:
    made = upgraded()
    before = made.status.active.precision
    made.run(60)
    assert (before, made.status.active.precision) == (AUTO, AUTO)
    assert not [a for a in made.actions if isinstance(a, CreateRevision | WriteLimits)]
    assert {row.identity.precision for row in made.rows.values()} > {AUTO}


def test_after_it_another_precision_has_to_win_as_often_as_anything_else() -> None:
    made = upgraded(consecutive_success_limit=3, cooldown=timedelta(seconds=10))
    made.run(60)
    made.serve(130, "prose")
    assert made.status.active.precision == AUTO
    assert made.status.reassessment.reason == "WaitingForWins"
    assert "in int8/int8 won 2 of 3 times in a row" in made.status.reassessment.message
    made.serve(120, "prose")
    assert serving(made) == (30, "int8/int8")
    assert made.kinds[-1:] == ["Requantize"]


def test_pods_of_a_release_that_knows_none_are_never_told_one() -> None:
    made = holding(world(inline(), 97, general=GENERAL))
    made.contract_version = 0
    made.run(60)
    made.serve(200, "prose")
    assert serving(made) == (30, "auto/auto")
    assert all(
        action.limits.newer_than(0) == ()
        for action in made.actions
        if isinstance(action, CreateRevision | WriteLimits)
    )
    said = {o.verdict.message for o in weigh(made.snapshot(), made.now)[1] if o.precision != AUTO}
    assert said == {
        "the release of the pods supports only auto: other precisions are considered once the pods are new"
    }
    made.contract_version = 1
    made.serve(250, "prose")
    assert serving(made) == (30, "int8/int8")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10 if LONG else 2))
def test_steady_traffic_changes_no_precision(seed: int) -> None:
    made = holding(world(min_quality=90, seed=seed, general=GENERAL))
    selected(made)
    chosen = serving(made)
    made.serve(300, "prose")
    assert serving(made) == chosen
    assert made.kinds == ["Select"]


def test_nothing_else_than_auto_is_decided_as_it_was_before_there_was_anything_else() -> None:
    """Golden: every action of a story, as the release before precisions decided it, in today's words; what it
    did not tell of yet is taken out, and so are joules, which have become those of prompts as well."""
    made = world(inline(), 90, general=GENERAL, prose=PROSE, small=BARE_SMALL)
    made.run(40)
    made.serve(160, "code")
    made.serve(200, "prose")
    reasons = ((action, action.why) for action in made.actions)
    said = [
        (type(action).__name__, str(why.reason), LOST_ROOM.sub("", why.message), _without_joules(why.numbers))
        for action, why in reasons
    ]
    assert hashlib.sha256(repr(said).encode()).hexdigest().startswith("70370ff712927954")
    names = [action.job.name for action in made.actions if isinstance(action, StartJob)]
    assert names == ["i-c2e7c0c255e5", "t-9fc97f789d6c", "t-d8b40f792b18", "q-a21aa3339aa5", "q-6d5cc52a7041"]
    assert sorted(made.rows) == [
        "q-9c508ac4ddf8",
        "q-a21aa3339aa5",
        "q-c93fe533340d",
        "t-9fc97f789d6c",
        "t-d8b40f792b18",
    ]


def _without_joules(numbers: Mapping[str, float]) -> Mapping[str, float]:
    return {name: value for name, value in numbers.items() if not name.endswith("joulesPerMegatoken")}
