"""What pods told is counted boot by boot: missed looks, restarts and pods that come and go are no requests,
and a pod's clock decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from helios_operator.api import parse, serialize
from helios_operator.api.types import Decision
from helios_operator.decide import decide
from helios_operator.decide.facts import tally
from helios_operator.decide.facts.fleet import Fleet
from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot
from helios_operator.simulate import world as simulated
from helios_operator.simulate.pods import SimulatedPod

from tests.decide.builders import inline, selected, world
from tests.decide.properties.stories import Story, tell
from tests.decide.test_stories import second_act
from tests.decide.test_triggers import with_rules
from tests.decide.truth import GENERAL
from tests.decide.world import World


def two_pods(every_requests: int = 60) -> World:
    """Both at 24 layers, and counted to the last request."""
    made = with_rules(world(inline(), general=GENERAL), every_requests=every_requests)
    made.spec = replace(made.spec, replicas=2)
    made.deployment = replace(made.deployment, spec=made.spec)
    selected(made)
    made.serve(2 * every_requests + 60, "prose")
    return made


def pods(made: World) -> list[SimulatedPod]:
    return next(revision for revision in made.revisions.values() if revision.routed).pods


def ends(made: World) -> object:
    """What tells that a reassessment ended."""
    return made.status.reassessment.last_time, made.status.reassessment.requests


def missing(*missed: SimulatedPod) -> Callable[[SimulatedPod], bool]:
    return lambda pod: any(pod is one for one in missed)


@pytest.mark.parametrize("place", [0, 1])
def test_a_missed_look_at_one_of_two_pods_is_no_request(place: int) -> None:
    made = two_pods()
    before = ends(made)
    for _ in range(5):
        made.misses = missing(pods(made)[place])
        made.run(2)
        made.misses = lambda pod: False
        made.run(2)
    assert ends(made) == before


def test_missed_looks_alone_change_no_budget() -> None:
    """24 layers would win, if requests that nobody sent were counted."""
    made = with_rules(two_pods(every_requests=150), consecutive_success_limit=4)
    made.serve(200, "code")
    assert made.active == ("general", 27)
    made.serve(100, "prose")
    made.annotate("helios.dev/reassess", made.now.isoformat())
    made.run(5)
    assert made.active == ("general", 27)
    wins = made.status.reassessment.consecutive_wins
    assert wins > 0
    for _ in range(20):
        made.misses = missing(pods(made)[0])
        made.run(3)
        made.misses = missing(pods(made)[1])
        made.run(3)
    made.misses = lambda pod: False
    made.run(10)
    assert made.active == ("general", 27)
    assert made.status.reassessment.consecutive_wins == wins


def test_asking_while_a_pod_is_missed_leaves_no_news_behind() -> None:
    """What it served before the answer is no reason for the next one."""
    made = two_pods(every_requests=60)
    made.misses = missing(pods(made)[0])
    made.serve(70, "prose")
    made.annotate("helios.dev/reassess", made.now.isoformat())
    made.run(5)
    before = ends(made)
    made.misses = lambda pod: False
    made.run(10)
    assert ends(made) == before


def test_what_was_missed_for_a_while_is_counted_when_it_is_seen() -> None:
    made = two_pods(every_requests=60)
    before = ends(made)
    done = made.finished - made.status.reassessment.requests
    made.misses = missing(*pods(made))
    made.serve(60 - done % 60 + 10, "prose")
    assert ends(made) == before
    made.misses = lambda pod: False
    made.run(2)
    assert ends(made) != before


def test_a_restart_is_no_request() -> None:
    made = two_pods()
    before = ends(made)
    for pod in (*pods(made), *pods(made)):
        pod.crash()
        made.run(5)
    assert ends(made) == before
    made.serve(70, "prose")
    assert ends(made) != before


def test_a_pod_fewer_is_no_request_and_neither_is_one_more() -> None:
    made = two_pods()
    for replicas in (1, 2, 3, 1):
        made.edit(replicas=replicas)
        made.run(6)
    settled = made.status.reassessment.requests
    made.run(20)
    assert made.status.reassessment.requests == settled <= made.finished
    assert made.kinds == ["Select"]


def test_time_alone_is_no_win_while_a_pod_is_not_reached() -> None:
    made = with_rules(two_pods(every_requests=1000), interval=timedelta(minutes=1))
    made.serve(160, "code")
    assert made.active == ("general", 27)
    made.misses = missing(pods(made)[0])
    made.run(1)
    wins = made.status.reassessment.consecutive_wins
    made.run(600, every=10)
    assert made.status.reassessment.consecutive_wins == wins
    assert made.active == ("general", 27)


def test_pods_that_are_gone_are_forgotten() -> None:
    made = two_pods()
    assert [pod.name for pod in made.status.reassessment.pods] == [pod.name for pod in pods(made)]
    made.edit(replicas=1)
    made.run(6)
    assert [pod.name for pod in made.status.reassessment.pods] == [pods(made)[0].name]


def test_a_status_with_a_single_total_is_accepted() -> None:
    """Of an older operator: it starts nothing, and counting goes on."""
    made = two_pods()
    document = serialize.deployment(made.deployment)
    del document["status"]["reassessment"]["pods"]
    made.deployment = parse.deployment(document)
    before = ends(made)
    made.run(5)
    assert ends(made) == before
    made.serve(70, "prose")
    assert ends(made) != before


def test_an_alarm_that_an_older_operator_weighed_is_not_weighed_again() -> None:
    made = two_pods()
    pods(made)[0]._alarm("Audit", "Down", pods(made)[0].requests, 9.0, made.now)
    made.run(5)
    made.serve(60, "prose")
    made.run(5)
    assert made.status.reassessment.trigger is None
    memory = replace(made.status.reassessment, pods=())
    made.deployment = replace(made.deployment, status=replace(made.status, reassessment=memory))
    before = made.status.reassessment.last_time
    made.run(5)
    assert made.status.reassessment.last_time == before


# -- what a change is dated by -------------------------------------------------------------------------------


def dated(made: World) -> list[tuple[int, int]]:
    """Of each change: what its entry counts, and what had been served when it was written."""
    counts: dict[object, tuple[int, int]] = {}

    def note(world: simulated.World, snapshot: Snapshot, plan: Plan) -> None:
        for entry in plan.status.history:
            counts.setdefault(entry.time, (entry.at_request, world.finished))
        found[:] = counts.values()

    found: list[tuple[int, int]] = []
    made.watch.append(note)
    return found


def test_what_is_served_while_a_change_is_made_counts_in_its_entry_and_in_the_next() -> None:
    """By new processes: also what those before them end when they take no more."""
    made = second_act()
    found = dated(made)
    made.serve(150, "code")
    made.serve(250, "prose")
    assert made.kinds == ["Select", "Switch", "Switch"]
    assert len(found) == 3
    assert [counted for counted, _ in found[1:]] == [served for _, served in found[1:]]


def test_what_those_serve_that_take_no_more_is_counted_once() -> None:
    made = second_act()
    made.stream_seconds = 20.0
    made.serve(150, "code")
    old = next(revision for revision in made.revisions.values() if revision.draining)
    before = tally.total(made.status.reassessment, Fleet.of(made.snapshot()))
    for _ in range(3):
        old.pods[0].requests += 1
        made.step()
    assert tally.total(made.status.reassessment, Fleet.of(made.snapshot())) == before + 3
    made.run(30)
    assert tally.total(made.status.reassessment, Fleet.of(made.snapshot())) == before + 3


# -- alarms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-86_400, -2, 2, 86_400])
def test_an_alarm_is_heard_whatever_the_pods_clock_says(seconds: float) -> None:
    made = selected(world(general=GENERAL))
    made.skew = lambda name: timedelta(seconds=seconds)
    made.serve(120, "code")
    assert made.kinds == ["Select", "Grow"]
    assert made.active == ("general", 27)


def test_an_alarm_by_a_clock_that_is_behind_is_not_lost_right_after_a_reassessment() -> None:
    made = selected(world(inline(), general=GENERAL))
    made.serve(20, "prose")
    made.annotate("helios.dev/reassess", made.now.isoformat())
    made.step()
    last = made.status.reassessment.last_time
    made.skew = lambda name: timedelta(seconds=-2)
    pod = pods(made)[0]
    pod._alarm("Audit", "Down", pod.requests, 9.0, made.now)
    made.step()
    assert last == made.now - timedelta(seconds=0.5)
    assert made.status.reassessment.trigger == "Alarm"


def test_the_same_ordinals_of_another_boot_are_another_alarm() -> None:
    made = selected(world(inline(), general=GENERAL))
    pod = pods(made)[0]
    for _ in range(2):
        pod.crash()
        made.run(4)
        made.serve(30, "prose")
        pod._alarm("Audit", "Down", pod.requests, 9.0, made.now)
        made.step()
        assert made.status.reassessment.trigger == "Alarm"
        made.serve(40, "prose")
        made.run(2)
        assert made.status.reassessment.trigger is None


def test_an_alarm_of_a_pod_that_does_not_answer_waits_for_it() -> None:
    made = selected(world(inline(), general=GENERAL))
    pod = pods(made)[0]
    pod._alarm("Audit", "Down", pod.requests, 9.0, made.now)
    made.step()
    made.misses = missing(pod)
    made.run(3)
    memory = made.status.reassessment
    assert (memory.trigger, memory.decision) == ("Alarm", Decision.INCONCLUSIVE)
    assert "does not answer" in memory.message
    made.misses = lambda pod: False
    made.run(1)
    assert "of 8 audited requests since the shift" in made.status.reassessment.message


def test_an_alarm_that_a_reassessment_could_not_see_is_news_afterwards() -> None:
    made = two_pods(every_requests=1000)
    first, second = pods(made)
    first._alarm("Audit", "Down", first.requests, 9.0, made.now)
    second._alarm("Audit", "Down", second.requests, 9.0, made.now)
    made.step()
    made.misses = missing(second)
    made.serve(80, "prose")
    assert made.status.reassessment.trigger is None
    made.misses = lambda pod: False
    before = made.status.reassessment.last_time
    made.step()
    assert made.status.reassessment.last_time > before


def test_prompts_count_by_the_ordinals_of_their_own_pod() -> None:
    """A set of the pod that restarted has low ordinals, one of the other pod says nothing of the shift."""
    made = second_act()
    made.edit(replicas=2)
    made.run(10)
    made.serve(80, "prose")
    pods(made)[1].crash()
    made.run(5)
    made.serve(200, "code")
    assert made.active == ("big", 30)
    newest = made.rows[made.status.active.quality]
    assert {text.domain for text in made.sets[newest.identity.prompts_digest]} == {"code"}


def test_a_look_decides_nothing_that_the_next_one_would_not() -> None:
    """The memory that a pass leaves is all that the next one needs, also when it saw nobody."""
    story = Story(("general",), True, 90, two_pods().spec.rollout.strategy, 10.0, 2, 10, (("misses", 100),))
    made = tell(story, [])
    plan = made.look(0)
    read_back = parse.deployment(serialize.deployment(replace(made.deployment, status=plan.status)))
    assert read_back.status == plan.status
    again = decide(replace(made.snapshot(), deployment=read_back), made.now)
    assert again.status == plan.status
