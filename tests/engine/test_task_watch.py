"""The detector of a fall of passes: a few failures are none, several in a row are."""

from __future__ import annotations

import random

from helios_contract.limits import TaskProbe
from helios_contract.telemetry import TaskCounts
from helios_server.engine.task_watch import TaskWatch
from helios_server.engine.watch import ExitInUse, Watch
from hypothesis import given
from hypothesis import strategies as st

PROBE = TaskProbe("sha256:t", 60.0, 4, "ff")
EXIT = ExitInUse(("m", "r"), "", 4, 4, None, None)


@given(st.lists(st.just(True), max_size=200))
def test_what_passes_never_alarms(passes: list[bool]) -> None:
    watch = TaskWatch()
    assert not any(watch.observe(each, label) for label, each in enumerate(passes))
    assert (watch.asked, watch.passed) == (len(passes), len(passes))


def test_three_failures_in_a_row_alarm_and_two_do_not() -> None:
    watch = TaskWatch()
    for label in range(50):
        assert watch.observe(True, label) is None
    assert watch.observe(False, 50) is None
    assert watch.observe(False, 51) is None
    change = watch.observe(False, 52)
    assert change is not None
    assert (change.down, change.since) == (True, 50)
    assert watch.observe(False, 53) is None  # it begins anew


def test_a_lasting_fall_is_found_and_chance_is_not() -> None:
    seeds = random.Random(5)

    def until_alarm(share: float, most: int) -> int | None:
        watch = TaskWatch()
        return next((n for n in range(most) if watch.observe(seeds.random() < share, n)), None)

    found = [until_alarm(0.6, 400) for _ in range(50)]
    assert all(n is not None and n < 120 for n in found)
    assert sum(until_alarm(0.99, 400) is not None for _ in range(100)) <= 3


def test_other_tasks_or_another_exit_begin_anew() -> None:
    watch = Watch(EXIT)
    watch.probe(PROBE)
    for _ in range(3):
        watch.task(False, 1.0)
    assert [(alarm.kind, alarm.direction) for alarm in watch.alarms] == [("Tasks", "Down")]
    assert watch.tasks == TaskCounts(3, 0)
    watch.probe(PROBE)
    assert watch.tasks == TaskCounts(3, 0)
    watch.probe(TaskProbe("sha256:t", 60.0, 4, "f0"))
    assert watch.tasks is None
    assert watch.alarms
    watch.task(True, 1.0)
    watch.follow(ExitInUse(("m", "r"), "", 3, 4, None, None))
    assert watch.tasks is None
    assert not watch.alarms
