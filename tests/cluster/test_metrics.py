"""What the operator tells Prometheus of a HeliosDeployment, and that it tells nothing of one that is gone."""

from __future__ import annotations

from helios_operator.cluster.metrics import Metrics
from helios_operator.decide.policy import DEFAULT

from tests.decide.builders import selected, world
from tests.decide.truth import GENERAL
from tests.decide.world import World

KEY = ("default", "chat")
OWN = 'name="chat",namespace="default"'


def told(metrics: Metrics, made: World) -> dict[str, float]:
    """After a pass over it: samples by name and labels."""
    snapshot = made.snapshot()
    metrics.passed(made.look(), snapshot)
    lines = (line for line in metrics.page().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_quality_is_told_when_there_are_enough_audits_and_not_before() -> None:
    made = selected(world(general=GENERAL))
    few = told(Metrics(), made)
    assert few[f"helios_operator_quality_target_ratio{{{OWN}}}"] == 0.9
    assert not any(name.startswith("helios_operator_quality_ratio") for name in few)
    made.serve(4 * DEFAULT.min_audits, "prose")
    metrics = Metrics()
    enough = told(metrics, made)
    low, mean, high = (
        enough[f'helios_operator_quality_ratio{{bound="{bound}",{OWN}}}']
        for bound in ("low", "estimate", "high")
    )
    assert 0.9 <= low < mean < high
    made.serve(80, "code")  # after which it grows: what was seen before is of another depth
    assert told(metrics, made)[f'helios_operator_quality_ratio{{bound="low",{OWN}}}'] != low


def test_without_a_promise_there_is_no_target() -> None:
    made = selected(world(general=GENERAL))
    told_before = told(metrics := Metrics(), made)
    made.edit(slo=made.spec.slo.__class__(min_agreement_percent=50))
    now = told(metrics, made)
    target = f"helios_operator_quality_target_ratio{{{OWN}}}"
    assert target in told_before
    assert target not in now


def test_the_newest_change_is_told_with_its_time() -> None:
    made, metrics = selected(world(general=GENERAL)), Metrics()
    told(metrics, made)
    made.serve(120, "code")
    changes = {k: v for k, v in told(metrics, made).items() if "last_change" in k}
    (newest,) = (entry for entry in made.status.history[-1:])
    labels = f'candidate="general",kind="Grow",layer_budget="27",{OWN},result="Promoted"'
    assert changes == {f"helios_operator_last_change_timestamp_seconds{{{labels}}}": newest.time.timestamp()}


def test_nothing_is_told_of_what_is_gone() -> None:
    made, metrics = selected(world(general=GENERAL)), Metrics()
    made.serve(60, "prose")
    assert any(OWN in name for name in told(metrics, made))
    metrics.forget(KEY)
    assert "chat" not in metrics.page().decode()
