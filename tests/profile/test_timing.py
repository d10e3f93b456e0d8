"""Timing rows: the machinery on planted durations, the structure of a real run. No test looks at the clock's
figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract.results import EnergyCost, EnergyPoint
from helios_operator.api import results
from helios_operator.api.rows import Hardware, TimingIdentity
from helios_server.errors import OutOfMemoryBudget
from helios_server.planning.timing import step_ns
from helios_server.profile.candidates import Candidate
from helios_server.profile.document import LIMIT_BYTES, encode
from helios_server.profile.energy import measure_energy
from helios_server.profile.opened import open_backbone
from helios_server.profile.step_bench import fill
from helios_server.profile.sweep import EFFORTS, Effort, summarize, sweep
from helios_server.profile.timing import measure_timing
from helios_server.profile.timing_settings import TimingSettings
from helios_server.profile.workload import Room, plan_step, shapes_to_check, shapes_to_fit
from helios_server.progress import Progress
from helios_server.telemetry.energy import Accumulator, CounterMeter, DeclaredMeter
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import make_checkpoint
from tests.profile.planted import noise_bundle


@pytest.fixture(autouse=True, scope="module")
def brief() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=3))
        yield


@pytest.fixture(scope="module")
def whole(brief: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The document of a run of every kind of head, which takes long."""
    return timing(candidates(tmp_path_factory.mktemp("whole")), watts=7.0)


def timing(candidates: list[Candidate], **settings: Any) -> dict[str, Any]:
    return measure_timing(
        open_backbone(candidates, None), TimingSettings(dtype="float32", **settings), Progress()
    )


def candidates(tmp_path: Path, layers: int = 6) -> list[Candidate]:
    """One model: with its own head, with an mlp bundle and with an affine one."""
    model = make_checkpoint(tmp_path / "model", layers=layers)
    mlp = noise_bundle(tmp_path / "mlp", model, (2, 4))
    affine = noise_bundle(tmp_path / "affine", model, (4,), kind="affine")
    uri = f"file://{model}"
    return [
        Candidate("own", uri),
        Candidate("mlp", uri, None, f"file://{mlp}"),
        Candidate("affine", uri, None, f"file://{affine}"),
    ]


# -- a whole run ---------------------------------------------------------------------------------------------


def test_a_run_yields_a_row_that_the_operator_reads(whole: Any) -> None:
    assert len(encode(whole)) <= LIMIT_BYTES
    hardware = Hardware(None, 0, 4096, "cpu", 2, "float32")
    identity = TimingIdentity("file:///m", "1", "float32", ("affine", "bare", "mlp"), hardware, 1)
    row = results.timing(results.read(encode(whole).decode()), identity, datetime.now(UTC))
    assert row.fit is not None
    assert row.memory is not None
    assert row.energy is not None
    assert set(row.fit.heads) == {"bare", "mlp", "affine"} == set(row.exit_bytes)
    for layers in (1, 6):
        step = step_ns(row.fit, layers=layers, rows=4, kv_tokens=256, sampled=4, head_kind="mlp")
        assert step > 0
    assert row.memory.layer_bytes > 0
    assert row.memory.process_start_bytes > 0
    assert row.exit_bytes["bare"] == 0 < row.exit_bytes["affine"] < row.exit_bytes["mlp"]
    assert row.energy.source == "declared"
    assert {rows for _, rows in row.energy.joules_per_megatoken} == {1, 8, 32}
    assert all(joules > 0 for joules in row.energy.joules_per_megatoken.values())


def test_every_batch_is_timed_at_two_depths_and_other_heads_at_some(whole: Any) -> None:
    points = [p for p in whole.points if p.sampled == p.rows and p.kv_tokens == 64 * p.rows]
    decoding = {(p.head_kind, p.layer_budget, p.rows) for p in points}
    assert decoding == {
        *(("bare", 1, batch) for batch in (1, 2, 3, 4, 8, 16, 32, 128)),
        *(("bare", 6, batch) for batch in (1, 2, 3, 4, 8, 16, 32)),
        *((kind, 1, batch) for kind in ("mlp", "affine") for batch in (1, 8, 32)),
    }
    assert {(p.layer_budget, p.rows) for p in whole.points if p.sampled == 0} == {(1, 1), (2, 128)}
    assert all(p.step_p50_us > 0 for p in whole.points)
    assert whole.fit.at_rows == (1, 2, 3, 4, 8, 16, 32, 128)
    assert whole.fit.timed_rows == 128


def test_only_layers_that_fit_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"intermediate_size": 8_000}
    model = make_checkpoint(tmp_path / "wide", layers=4, **wide)
    one = [Candidate("own", f"file://{model}")]
    whole = timing(one)
    facts = whole.memory
    assert facts is not None
    monkeypatch.setattr(
        "helios_server.engine.host_memory.anonymous_bytes", lambda: facts.process_start_bytes + held()
    )
    monkeypatch.setattr("helios_server.engine.host_memory.page_table_bytes", lambda: 0)  # they are in it

    def held() -> int:
        return facts.fixed_bytes + facts.layer_bytes

    need = (
        facts.process_start_bytes + facts.fixed_bytes + facts.step_tokens * facts.activation_bytes_per_token
    )
    mib = (need + int(2.6 * facts.layer_bytes)) // 2**20
    assert max(p.layer_budget for p in timing(one, memory_mib=mib).points) == 2
    with pytest.raises(OutOfMemoryBudget, match=r"memory-mib: timing one layer takes \d+ MiB"):
        timing(one, memory_mib=mib - 2 * facts.layer_bytes // 2**20)


# -- which steps ---------------------------------------------------------------------------------------------


@given(
    deepest=st.integers(1, 80),
    rows=st.integers(1, 32),
    pages_per_row=st.integers(4, 40),
    context=st.integers(8, 4096),
    chunk=st.integers(1, 256),
)
def test_no_shape_leaves_its_room(
    deepest: int, rows: int, pages_per_row: int, context: int, chunk: int
) -> None:
    room = Room(rows, rows * pages_per_row * 16, 16, context, chunk)
    shapes = (*shapes_to_fit(deepest, {"bare": "", "mlp": "sha256:1"}, room), *shapes_to_check(deepest, room))
    assert len(shapes) >= 4  # what a fit needs
    for shape in shapes:
        assert 1 <= shape.layers <= deepest
        assert max(shape.context, shape.prefill) <= context
        assert shape.decoding <= rows
        plan = plan_step(shape, 16, vocab_size=320, seed=0)
        assert plan.tokens == shape.rows > 0
        assert sum(row.samples for row in plan.rows) == shape.decoding
        pages = [page for row in plan.rows for page in row.sequence.pages]
        assert len(pages) == len(set(pages))
        assert max(pages) < room.tokens // 16


# -- how they are timed --------------------------------------------------------------------------------------


def test_drift_that_hits_a_whole_round_does_not_move_the_medians() -> None:
    true = [10_000, 50_000, 200_000, 1_000_000]
    noise = random.Random(0)
    slowness = [1.0 + index / 20 for index in range(21)]
    rounds = [[round(t * slow * noise.uniform(0.99, 1.01)) for t in true] for slow in slowness]
    found = [duration.p50_ns for duration in summarize(rounds)]
    assert [f / found[0] for f in found] == pytest.approx([t / true[0] for t in true], rel=0.02)
    quiet = [duration.quiet_ns for duration in summarize(rounds)]
    assert quiet == pytest.approx([1.1 * t for t in true], rel=0.02)  # of slownesses from 1 to 2, a low one
    assert all(duration.p95_ns > 1.8 * t for duration, t in zip(summarize(rounds), true, strict=True))
    assert {duration.count for duration in summarize(rounds)} == {21}


def test_every_round_runs_every_step_and_the_first_is_dropped() -> None:
    ran: list[int] = []
    steps = [lambda index=index: ran.append(index) for index in range(5)]
    (durations,) = sweep([steps], Effort(seconds=0.0, rounds=4))
    assert [duration.count for duration in durations] == [4] * 5
    rounds = [ran[start : start + 5] for start in range(0, len(ran), 5)]
    assert len(rounds) == 5
    assert all(sorted(order) == list(range(5)) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_keys_and_values_that_steps_are_timed_with_are_of_a_usual_size(dtype: torch.dtype) -> None:
    slab = torch.zeros(4, 2, 3, 16, 68, dtype=dtype)
    fill(slab)
    numbers = slab.float()
    if dtype is torch.int8:  # 64 elements and their unit
        numbers = numbers[..., :64] * slab[..., 64:].contiguous().view(torch.float32)
    assert numbers.min() > 0.1
    assert numbers.max() <= 1


# -- joules --------------------------------------------------------------------------------------------------


def test_energy_is_told_per_token_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = [0.0]

    def step_of(joules: float) -> Callable[[], None]:
        def step() -> None:
            spent[0] += joules

        return step

    monkeypatch.setattr("helios_server.profile.energy._BUSY_SECONDS", 0.0)
    monkeypatch.setattr("helios_server.profile.energy._IDLE_SECONDS", 0.01)
    meter = CounterMeter("rapl", [(lambda: round(spent[0] * 1e6), Accumulator(1e-6))])
    document = measure_energy(meter, {(24, 8): step_of(0.4), (12, 1): step_of(0.02)})
    assert document == EnergyCost("rapl", (EnergyPoint(12, 1, 20_000), EnergyPoint(24, 8, 50_000)), 0)


def test_declared_watts_are_labelled_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helios_server.profile.energy._BUSY_SECONDS", 0.0)
    monkeypatch.setattr("helios_server.profile.energy._IDLE_SECONDS", 0.01)
    seconds = count()
    document = measure_energy(DeclaredMeter(5.0, lambda: float(next(seconds))), {(2, 1): lambda: None})
    assert document.source == "declared"
    assert document.points == (EnergyPoint(2, 1, 5_000_000),)
