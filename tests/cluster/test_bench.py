"""The arithmetic of `bench.operator`: what it counts in an audit log, and how sure it is of its figures."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.operator import audit
from bench.operator.__main__ import _poisson, _resampled
from bench.operator.process import Sample, growth

BEGIN = datetime(2026, 11, 23, 12, tzinfo=UTC)
USER = "system:serviceaccount:helios-system:helios"


def event(verb: str, seconds: float, user: str = USER, stage: str = "ResponseComplete") -> str:
    about = {"resource": "heliosdeployments", "subresource": "status", "namespace": "a", "name": "chat"}
    when = (BEGIN + timedelta(seconds=seconds)).isoformat()
    told = {"stage": stage, "verb": verb, "user": {"username": user}, "stageTimestamp": when}
    return json.dumps(told | {"objectRef": about})


def test_only_the_users_answered_writes_of_the_time_count(tmp_path: Path) -> None:
    lines = [
        event("patch", 1),
        event("patch", 2),
        event("create", 3),
        event("get", 3),
        event("patch", 3, user="someone"),
        event("patch", 3, stage="Panic"),
        event("patch", -1),
        event("patch", 10),
    ]
    log = tmp_path / "audit.log"
    log.write_text("\n".join(lines) + "\n")
    found = audit.writes(log, USER, BEGIN, BEGIN + timedelta(seconds=10))
    assert dict(found) == {"patch heliosdeployments/status": 2, "create heliosdeployments/status": 1}


def leaking(mib_in_10_minutes: float, noise: float, seed: int = 0) -> list[Sample]:
    source = random.Random(seed)
    return [Sample(s, 200 + mib_in_10_minutes * s / 600 + source.gauss(0, noise), s / 10) for s in range(601)]


def test_growth_is_found_with_its_interval() -> None:
    value, low, high = growth(leaking(10, noise=1))
    assert low < 100 * 10 / 205 < high
    assert high - low < 1
    assert value == pytest.approx(4.9, abs=0.3)


def test_without_growth_the_interval_holds_0_as_often_as_it_says() -> None:
    intervals = [growth(leaking(0, noise=1, seed=seed))[1:] for seed in range(200)]
    assert 0.9 <= sum(low <= 0 <= high for low, high in intervals) / 200 <= 0.99


def test_counts_and_shares_have_intervals() -> None:
    assert _poisson(0) == pytest.approx((0, 0, 3.69), abs=0.05)
    assert _poisson(10) == pytest.approx((10, 4.80, 18.39), abs=0.05)
    value, low, high = _resampled([n / 100 for n in range(100)], 95)
    assert value == 0.94
    assert 0.85 < low < 0.94 < high <= 0.99
