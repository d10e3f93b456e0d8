"""Which option wins: by the objective, the SLO and the memory; never by a name or a place in the list."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.results import EnergyCost, EnergyPoint
from helios_operator.api.types import Objective, Slo, WorkloadSpec
from helios_operator.decide.weigh.predicting import joules
from helios_server.planning.memory import MIB
from helios_server.planning.timing import OWN_HEAD, step_ns

from tests.decide.builders import inline, selected, world
from tests.decide.truth import BARE_BIG, CODE, GENERAL, NOISE, PROSE, Backbone, Model, bundle
from tests.decide.world import World


def with_slo(made: World, **slo: object) -> World:
    made.spec = replace(made.spec, slo=replace(made.spec.slo, **slo))  # type: ignore[arg-type]
    made.deployment = replace(made.deployment, spec=made.spec)
    return made


@pytest.mark.parametrize(("asked", "depth"), [(85, 24), (90, 24), (95, 27), (97, 30)])
def test_more_quality_takes_more_layers(asked: int, depth: int) -> None:
    made = world(inline(), asked, general=bundle("sha256:general", prose=(0.94, 0.968)))
    made.run(30)
    assert made.active == ("general", depth)


def test_quality_is_not_given_up_when_nobody_asks_for_any() -> None:
    made = world(inline(), None, general=GENERAL)
    made.run(30)
    assert made.active == ("general", 27)


@pytest.mark.parametrize("asked", [60, 80, 90, 97])
def test_a_bundle_of_noise_is_never_chosen(asked: int) -> None:
    made = world(inline(), asked, noise=NOISE, general=GENERAL)
    made.run(30)
    assert made.active[0] == "general" or made.active[1] == 30
    if made.active[1] < 30:
        assert made.active[0] == "general"


def test_noise_alone_serves_at_full_depth() -> None:
    made = world(inline(), 80, noise=NOISE)
    made.run(30)
    assert made.active == ("noise", 30)
    assert made.status.reassessment.reason == "FirstSelection"


def test_agreement_can_be_asked_for() -> None:
    made = with_slo(world(inline(), 90, general=GENERAL), min_agreement_percent=93)
    made.run(30)
    assert made.active == ("general", 27)


FAST = Backbone("fast", 20, layer_ns=400_000, joules_per_layer=9000, worth={"prose": 0.93})
FRUGAL = Backbone("frugal", 28, layer_ns=1_200_000, joules_per_layer=1000, worth={"prose": 0.95})


@pytest.mark.parametrize(
    ("objective", "winner"),
    [
        (Objective.THROUGHPUT, "fast"),
        (Objective.LATENCY, "fast"),
        (Objective.ENERGY, "frugal"),
        (Objective.QUALITY, "big"),
    ],
)
def test_the_objective_decides(objective: Objective, winner: str) -> None:
    models = {"fast": Model(FAST), "frugal": Model(FRUGAL), "big": BARE_BIG}
    made = with_slo(world(inline(), 80, **models), optimization_type=objective)
    made.run(60)
    assert made.active[0] == winner


def test_latency_can_choose_otherwise_than_throughput() -> None:
    """A small model serves many rows at once; a request alone is quicker on one whose layers are."""
    slim = Backbone("slim", 30, layer_ns=950_000, fixed_mib=20, layer_mib=3)
    models = {"slim": Model(slim), "big": Model(Backbone("wide", 30, layer_ns=850_000))}
    chosen = {}
    for objective in (Objective.THROUGHPUT, Objective.LATENCY):
        made = with_slo(world(inline(), 80, **models), optimization_type=objective)
        made.run(60)
        chosen[objective] = made.active[0]
    assert chosen == {Objective.THROUGHPUT: "slim", Objective.LATENCY: "big"}


def test_a_latency_slo_makes_the_batch_smaller() -> None:
    free = world(inline(), 90, general=GENERAL)
    tight = with_slo(world(inline(), 90, general=GENERAL), itl_ms=55)
    for made in (free, tight):
        made.run(30)
    assert 0 < tight.status.active.max_batch_size < free.status.active.max_batch_size


def test_what_was_rejected_says_why_with_numbers() -> None:
    made = with_slo(world(inline(), 90, general=GENERAL, noise=NOISE), itl_ms=2)
    made.run(30)
    message = made.status.reassessment.message
    assert made.status.reassessment.reason == "NoFeasibleCandidate"
    assert "ms > 2 ms" in message
    made = world(inline(), 90, noise=NOISE)
    made.run(30)
    assert "< 90" in made.status.reassessment.message


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a"), ("zeta", "alpha")])
@pytest.mark.parametrize("reverse", [False, True])
def test_names_and_order_change_nothing(names: tuple[str, str], reverse: bool) -> None:
    models = {names[0]: PROSE, names[1]: CODE}
    made = world(inline(), 90, **models)
    if reverse:
        made.spec = replace(made.spec, candidates=made.spec.candidates[::-1])
        made.deployment = replace(made.deployment, spec=made.spec)
    made.run(30)
    assert made.active == (names[0], 24)


def test_a_serving_process_that_holds_more_than_the_profiling_one_leaves_fewer_rows() -> None:
    light, heavy = world(inline(), 90, general=GENERAL), world(inline(), 90, general=GENERAL)
    heavy.process_start_bytes = 380 * MIB
    for made in (light, heavy):
        made.run(30)
    assert heavy.active == light.active
    assert heavy.status.active.max_batch_size < light.status.active.max_batch_size
    writes = len(heavy.actions)
    heavy.process_start_bytes += MIB // 2
    heavy.run(5)
    assert heavy.actions[writes:] == []


def test_the_batch_that_the_pods_found_is_the_one_that_is_told() -> None:
    made = world(inline(), 90, general=GENERAL)
    made.rows_that_fit = 7
    made.run(30)
    assert made.status.active.max_batch_size == 7


def test_a_workload_that_does_not_fill_the_batch_is_predicted_as_such() -> None:
    made = world(inline(), 90, general=GENERAL)
    made.spec = replace(
        made.spec, workload=WorkloadSpec(isl=64, osl=48, concurrency=1), slo=Slo(min_quality_percent=90)
    )
    made.deployment = replace(made.deployment, spec=made.spec)
    made.run(30)
    alone = made.status.candidates[0].tokens_per_second
    full = selected(world(inline(), 90, general=GENERAL)).status.candidates[0].tokens_per_second
    assert alone < full / 3


@pytest.mark.parametrize("rows", [1, 8])
def test_joules_are_those_of_the_time_that_tokens_take_with_their_prompts(rows: int) -> None:
    """A watt for as long as they take, whatever the depth at which it was measured, and none without a
    meter."""
    fit = FAST.fit()
    steps = {
        layers: step_ns(fit, layers=layers, rows=rows, kv_tokens=0, sampled=rows, head_kind=OWN_HEAD)
        for layers in (10, 20)
    }
    points = [EnergyPoint(layers, rows, round(ns / rows / 1e3)) for layers, ns in steps.items()]
    measured = EnergyCost("declared", tuple(points))
    assert joules(measured, fit, rows, tokens_per_second=50) == pytest.approx(1e6 / 50, rel=1e-3)
    assert joules(measured, fit, rows, tokens_per_second=25) == pytest.approx(1e6 / 25, rel=1e-3)
    assert joules(None, fit, rows, tokens_per_second=25) is None
