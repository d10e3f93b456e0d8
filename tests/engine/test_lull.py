"""When audits are put off, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helios_contract.limits import Audit
from helios_server.engine.audit import LULL_SECONDS, Auditor
from helios_server.engine.lull import MEMORY_SECONDS, Lull
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.helpers import prompt_of, running, send
from tests.engine.test_audit import wait_for

LOADS = st.lists(st.tuples(st.integers(0, 100), st.floats(0.001, 20)), min_size=1, max_size=40)


@given(load=st.integers(0, 200), seconds=st.lists(st.floats(0.001, 100), min_size=1, max_size=30))
def test_a_load_that_stays_is_a_lull(load: int, seconds: list[float]) -> None:
    lull, now = Lull(), 0.0
    for each in seconds:
        lull.observe(load, now)
        assert lull
        now += each


@given(loads=LOADS)
def test_nobody_being_here_is_a_lull_whatever_was(loads: list[tuple[int, float]]) -> None:
    lull, now = Lull(), 0.0
    for requests, seconds in loads:
        lull.observe(requests, now)
        now += seconds
    lull.observe(0, now)
    assert lull


@given(loads=LOADS)
def test_more_than_ever_is_none(loads: list[tuple[int, float]]) -> None:
    lull, now = Lull(), 0.0
    for requests, seconds in loads:
        lull.observe(requests, now)
        now += seconds
    lull.observe(max(requests for requests, _ in loads) + 1, now)
    assert not lull


def test_a_burst_is_none_until_it_has_lasted_and_calm_after_it_is_one() -> None:
    lull = Lull()
    for second in range(60):
        lull.observe(4, float(second))
    lull.observe(40, 60.0)
    assert not lull
    lull.observe(40, 60.0 + MEMORY_SECONDS / 2)
    assert not lull
    lull.observe(4, 61.0 + MEMORY_SECONDS / 2)
    assert lull
    for second in range(200):
        lull.observe(40, 100.0 + second)
    assert lull  # such is the load now


class Asked(Auditor):
    """Whether work would begin is all that is looked at."""

    def may_work(self, requests: int, now: float) -> bool:
        self._lull.observe(requests, now)
        return not self._is_put_off(now)


@pytest.fixture
def auditor() -> Iterator[Asked]:
    made = Asked(lambda row: None, lambda: None)
    yield made
    made.close()


def test_a_burst_puts_audits_off_but_not_for_ever(auditor: Asked) -> None:
    assert auditor.may_work(2, 0.0)
    assert not auditor.may_work(1000, 1.0)
    assert not auditor.may_work(2000, LULL_SECONDS)
    assert auditor.may_work(3000, 1.0 + LULL_SECONDS)
    assert auditor.may_work(2, 2.0 + LULL_SECONDS)
    assert not auditor.may_work(4000, 3.0 + LULL_SECONDS)


def test_what_is_waited_for_is_put_off_by_nobody(auditor: Asked) -> None:
    assert auditor.may_work(2, 0.0)
    auditor.hasty = True
    assert auditor.may_work(1000, 1.0)


def test_audits_of_a_burst_are_made_after_it(tiny: Path) -> None:
    with running(tiny, exit_layers=(2, 4), audit=Audit(100)) as engine:
        streams = [send(engine, prompt_of(20, i), max_tokens=40, ignore_eos=True) for i in range(12)]
        for stream in streams:
            stream.result()
        wait_for(lambda: len(engine.telemetry().audits) == len(streams))
