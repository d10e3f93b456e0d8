"""The benches of budgets, of the timing law and of crowded memory: what they measure becomes the figures that
they claim, and each runs."""

from __future__ import annotations

from argparse import Namespace

import pytest
from helios_server.profile.workload import Room

from bench import load
from bench.engine import budgets, crowded, timing_law
from bench.engine.parts import PARTS
from bench.load import Load
from tests.checkpoints import make_checkpoint
from tests.engine.bundles import random_bundle

FULL = {
    "layers": 30.0, "lm head": 7.0, "exit head": 0.5, "choice": 0.25, "sampling": 0.25, "scheduling": 0.25,
    "preparation": 1.0, "rest": 0.75, "step": 40.0,
}  # fmt: skip


def step(depth: int, exit_head: float, beside: float = 0.0) -> dict[str, float]:
    parts = FULL | {"layers": float(depth), "exit head": exit_head}
    return parts | {"step": sum(parts[name] for name in PARTS) + beside}


def test_a_step_of_fewer_layers_is_expected_to_take_its_parts() -> None:
    assert budgets.expected(FULL, 30, 30, FULL["exit head"]) == FULL["step"]
    assert budgets.expected(FULL, 30, 24, 1.5) == 24 + 7 + 1.5 + 2.5


def test_a_budget_that_costs_its_parts_has_all_of_the_ideal() -> None:
    found = budgets.Rounds(8, 30, {30: [FULL, FULL], 24: [step(24, 1.5), step(24, 1.5, beside=3.5)]})
    claims = {claim.id: claim for claim in budgets.claims_of(found, "float16")}
    over = claims["step-over-parts-float16-batch-8-layers-24"]
    assert (over.low, over.high) == (1.0, 1.1)
    assert claims["ideal-ratio-float16-batch-8-layers-24"].value == round(40 / 35, 4)
    assert claims["ratio-float16-batch-8-layers-24"].low == round(40 / 38.5, 4)
    share = claims["share-of-ideal-float16-batch-8-layers-24"]
    assert (share.low, share.high) == (round(1 / 1.1, 4), 1.0)
    assert claims["outside-kernels-float16-batch-8"].value == round(2.25 / 40, 4)


def test_the_law_is_held_to_the_pair_that_it_misses_most() -> None:
    sweeps = [{"a": 1.05, "b": 0.90}, {"a": 1.03, "b": 0.94}, {"a": 1.04, "b": 0.92}]
    *ratios, worst = timing_law.claims_of("float16", sweeps)
    assert [claim.value for claim in ratios] == [1.04, 0.92]
    assert (worst.id, worst.value, worst.low, worst.high) == ("law-worst-percent-float16", 8.0, 6.0, 10.0)


def test_pairs_that_are_held_out_have_every_head_but_at_full_depth() -> None:
    room = Room(rows=128, tokens=1024, page_tokens=16, context=2048, chunk=256)
    shapes = list(timing_law.held_out([4, 6], [2, 12], {"bare": "", "mlp": "d"}, 6, room))
    assert {s.context for s in shapes} == {80, 96, 200}, "12 rows have 5 pages each, whatever is wanted"
    assert [(s.layers, s.decoding, s.head_kind) for s in shapes] == [
        (4, 2, "bare"), (4, 2, "mlp"), (4, 12, "bare"), (4, 12, "mlp"), (6, 2, "bare"), (6, 12, "bare"),
    ]  # fmt: skip


def test_what_the_budget_makes_of_memory_is_held_to_the_smaller_ratio() -> None:
    pairs = [
        {
            crowded.FULL: Load(4, 100.0, {"itl-p50": 10.0}),
            crowded.HELD: Load(4, 120.0, {"itl-p50": 9.0}),
            crowded.FREE: Load(16, 150.0, {"itl-p50": 30.0}),
        },
        {
            crowded.FULL: Load(4, 100.0, {"itl-p50": 11.0, "ttft-p50": 5.0}),
            crowded.HELD: Load(4, 120.0, {"itl-p50": 9.0, "ttft-p50": 5.0}),
            crowded.FREE: Load(4, 90.0, {"itl-p50": 30.0, "ttft-p50": 5.0}),
        },
    ]
    claims = {claim.id: claim for claim in crowded.claims_of(pairs)}
    assert (claims["share-of-possible"].low, claims["share-of-possible"].high) == (0.9, 1.25)
    assert (claims["compute-ratio"].value, claims["capacity-ratio"].high) == (1.2, 4.0)
    assert claims["itl-p50-full-depth"].value == 10.5
    assert "ttft-p50-budget" not in claims


def test_latencies_are_quantiles_in_milliseconds() -> None:
    found = load._latencies({"ttft": [], "itl": [0.001 * number for number in range(100, 0, -1)]})
    assert found == {"itl-p50": 50.0, "itl-p99": 99.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Uris of a model and of heads for it."""
    path = tmp_path_factory.mktemp("laws")
    made = make_checkpoint(path / "model", layers=6, seed=1)
    return f"file://{made}", random_bundle(path / "heads", made, (2, 4), 3).uri


def test_every_depth_and_batch_is_measured(model: tuple[str, str]) -> None:
    options = Namespace(batches=[1, 3], prompt=8, new=4, rounds=1, threads=1)
    bench = budgets.Bench(*model, "float16", [2, 3], options)
    try:
        found = bench.rounds()
    finally:
        bench.engine.stop()
    assert bench.heads == {2: "affine", 3: "bare", 6: "bare"}
    assert [(one.batch, sorted(one.by_depth)) for one in found] == [(1, [2, 3, 6]), (3, [2, 3, 6])]
    for one in found:
        for [parts] in one.by_depth.values():
            assert parts["layers"] > 0 < parts["exit head"]
        assert all(claim.value > 0 for claim in budgets.claims_of(one, "float16"))


def test_a_law_is_fitted_and_compared_in_every_sweep(model: tuple[str, str]) -> None:
    options = Namespace(depths=[3, 6], batches=[2, 5], exits=model[1], sweeps=2, seconds=0.0)
    found = timing_law.measure(model[0], "float16", options)
    pairs = [(3, batch, head) for batch in (2, 5) for head in ("bare", "affine")] + [
        (6, 2, "bare"),
        (6, 5, "bare"),
    ]
    names = {f"layers-{layers}-batch-{batch}-{head}" for layers, batch, head in pairs}
    assert [set(each) for each in found["sweeps"]] == [names] * 2
    assert all(ratio > 0 for each in found["sweeps"] for ratio in each.values())
