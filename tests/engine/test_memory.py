"""What the planner predicts is what the process takes: tensors counted, memory held, and a hard limit
survived.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_contract.results import MemoryFacts
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.memory import (
    CONTEXT_BYTES,
    accelerator_bytes,
    allowed_bytes,
    load_first_layer,
    own_bytes,
)
from helios_server.errors import OutOfMemoryBudget
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.linear import Numerics
from helios_server.models.rope import RopeTable
from helios_server.planning.memory import MIB, capacity, limit_mib_for_rows

from tests.checkpoints import make_checkpoint
from tests.engine.cgroups import hard_limit
from tests.engine.helpers import limits_for, prompt_of, running, send
from tests.sizes import LONG

REPOSITORY = Path(__file__).parents[2]
LIMIT_MIB = 1500
TIGHT_MIB = 540
"""One request at full depth as published."""
KILLED = -9
LONG_ALONE = pytest.mark.skipif(
    not LONG, reason="`make test-long` runs it: other precisions, as the two that always run"
)


def fill(
    model: Path,
    layers: int,
    told_mib: int,
    procs: Path | None = None,
    audited: int = 0,
    precision: str = "auto/auto",
) -> subprocess.CompletedProcess[str]:
    """Runs `fill_memory.py`, under a hard limit from before its first import when `procs` is given."""
    join = f"echo $$ > {procs} && " if procs else ""
    command = f"{join}exec {sys.executable} -m tests.engine.fill_memory {model} {layers} {told_mib} {audited}"
    command += f" {precision}"
    return subprocess.run(["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize(
    ("layers", "precision"),
    [
        (6, "auto/auto"),
        (30, "int8/int8"),
        pytest.param(18, "int8/auto", marks=[pytest.mark.long, LONG_ALONE]),
        pytest.param(24, "int4/int8", marks=[pytest.mark.long, LONG_ALONE]),
    ],
)
def test_every_page_that_was_planned_survives_a_hard_limit(
    smollm2: Path, layers: int, precision: str
) -> None:
    with hard_limit(LIMIT_MIB << 20) as procs:
        child = fill(smollm2, layers, LIMIT_MIB, procs, precision=precision)
    assert child.stdout.endswith("survived\n"), child.stderr
    report = json.loads(child.stdout.splitlines()[0])
    assert report["held"] == pytest.approx(report["planned"], rel=0.02)
    assert report["planned"] > 0.95 * (LIMIT_MIB << 20)


@pytest.mark.long
def test_audits_stay_within_what_was_planned_for_them(smollm2: Path) -> None:
    """At a depth that has them read the layers above it, one after the other."""
    with hard_limit(LIMIT_MIB << 20) as procs:
        child = fill(smollm2, 27, LIMIT_MIB, procs, audited=100)
    assert child.stdout.endswith("survived\n"), child.stderr


def test_what_is_planned_for_two_per_cent_more_does_not_survive(smollm2: Path) -> None:
    with hard_limit(LIMIT_MIB << 20) as procs:
        child = fill(smollm2, 30, round(1.02 * LIMIT_MIB), procs)
    assert child.returncode == KILLED, child.stdout


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it takes a minute")
def test_the_precision_changes_in_memory_for_one_model_and_one_layer(smollm2: Path) -> None:
    """Back and forth, every page written each time; two models at once would not survive."""
    command = f"exec {sys.executable} -m tests.engine.fill_requantized {smollm2} {TIGHT_MIB}"
    command += " auto/auto int8/int8 int8/auto auto/auto auto/int8"
    with hard_limit(TIGHT_MIB << 20) as procs:
        shell = ["sh", "-c", f"echo $$ > {procs} && {command}"]
        child = subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    assert child.stdout.endswith("survived\n"), child.stdout + child.stderr
    *reports, _ = (line for line in child.stdout.splitlines())
    assert len(reports) == 5
    for report in map(json.loads, reports):
        assert report["held"] == pytest.approx(report["planned"], rel=0.03)


@pytest.mark.parametrize("layers", [6, 18, 30])
def test_tensor_bytes_are_those_of_the_plan(smollm2: Path, layers: int) -> None:
    config = EngineConfig(max_context=512, threads=1)
    with running(smollm2, config, layer_budget=layers, exit_layers=(layers,)) as engine:
        serving = engine.serving
        facts, report, backbone = serving.model.facts, serving.capacity, serving.weights.backbone
        plan = serving.model.plan(serving.limits, serving.weights.heads, backbone.numerics.device)
    weights = facts.fixed_bytes + layers * facts.layer_bytes
    assert weights == pytest.approx(backbone.resident_bytes, rel=0.02)
    assert report.weight_bytes == backbone.resident_bytes
    assert report.layers_loaded == layers
    kv = plan.pages * facts.page_tokens * layers * facts.kv_bytes_per_token_layer
    assert kv == pytest.approx(report.kv_bytes, rel=0.02)
    read = Checkpoint.open(smollm2)
    Backbone.load(read, layers)
    stored = 2 * (read.config.vocab_size * read.config.hidden_size + layers * _layer_elements(read))
    assert read.bytes_read == pytest.approx(stored, rel=0.02)


def _layer_elements(checkpoint: Checkpoint) -> int:
    config = checkpoint.config
    attention = config.hidden_size * (2 * config.q_size + 2 * config.kv_size)
    return attention + 3 * config.hidden_size * config.intermediate_size


def test_a_model_that_does_not_fit_is_refused_with_need_and_limit(tiny: Path) -> None:
    with (
        pytest.raises(
            OutOfMemoryBudget, match=r"one request of 64 tokens at 6 layers needs \d+ MiB, the limit is 1"
        ),
        running(tiny, memory_mib=1),
    ):
        pass


def test_a_context_that_does_not_fit_is_bounded_by_the_fix_that_is_named(tmp_path: Path) -> None:
    endless = make_checkpoint(tmp_path / "endless", max_position_embeddings=4_194_304)
    limit = host_memory.anonymous_bytes() // MIB + 500  # what the tests before this one left counts too
    with pytest.raises(OutOfMemoryBudget, match=rf"needs \d+ MiB, the limit is {limit} MiB") as refused:
        Engine.start(EngineConfig(dtype="float32"), limits_for(endless, memory_mib=limit))
    assert "the context of 4194304 tokens (--max-context, limits.maxContextTokens)" in refused.value.fix
    bounded = EngineConfig(dtype="float32", max_context=8192)
    with running(endless, bounded, memory_mib=limit) as engine:
        assert engine.info().max_context_tokens == 8192
        assert len(send(engine, prompt_of(20), max_tokens=3, ignore_eos=True).result().output_ids) == 3


@pytest.mark.parametrize(("context", "beyond_mib"), [(4_194_304, 100), ((1 << 31) - 1, 1000)])
def test_a_context_whose_positions_alone_do_not_fit_is_refused_before_they_are_made(
    tmp_path: Path, context: int, beyond_mib: int
) -> None:
    endless = make_checkpoint(tmp_path / "endless", max_position_embeddings=context)
    limit = host_memory.anonymous_bytes() // MIB + beyond_mib
    config = EngineConfig(dtype="float32")
    with pytest.raises(
        OutOfMemoryBudget, match=rf"the positions of {context} tokens take \d+ MiB"
    ) as refused:
        load_first_layer(Checkpoint.open(endless), config, limit)
    assert refused.value.field == "max_context"
    assert f"the context of {context} tokens (--max-context, limits.maxContextTokens)" in refused.value.fix
    with pytest.raises(OutOfMemoryBudget, match=f"the positions of {context} tokens"):
        Engine.start(config, limits_for(endless, memory_mib=limit))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_table_of_positions_takes_what_it_is_said_to(tiny: Path, dtype: str) -> None:
    config = Checkpoint.open(tiny).config
    for numerics in (Numerics.of(dtype=dtype), Numerics.of(dtype=dtype, native=False)):
        made = RopeTable(config, numerics, 100).nbytes
        assert made <= RopeTable.bytes_of(config, numerics, 100) <= 2 * made


def test_a_bound_holds_for_every_model_that_a_process_serves(tmp_path: Path) -> None:
    """A model with less has less; one whose linear rope stretches has as much as that."""
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    models = {
        make_checkpoint(tmp_path / "long", max_position_embeddings=512): 300,
        make_checkpoint(tmp_path / "short", max_position_embeddings=128): 128,
        make_checkpoint(tmp_path / "linear", max_position_embeddings=64, rope_parameters=linear): 256,
        make_checkpoint(tmp_path / "far", max_position_embeddings=128, rope_parameters=linear): 300,
    }
    first, *others = models
    with running(first, EngineConfig(dtype="float64", max_context=300)) as engine:
        assert engine.info().max_context_tokens == models[first]
        for generation, model in enumerate(others, start=2):
            engine.set_limits(limits_for(model, generation=generation)).result(60)
            assert engine.info().max_context_tokens == models[model]


def test_no_more_is_spent_than_there_is(caplog: pytest.LogCaptureFixture) -> None:
    cpu, there = torch.device("cpu"), host_memory.limit_bytes()
    assert allowed_bytes(None, cpu) == allowed_bytes(0, cpu) == there
    assert allowed_bytes(64, cpu) == 64 * MIB
    assert not caplog.records
    assert allowed_bytes(there // MIB + 1, cpu) == there
    assert f"{there // MIB + 1} MiB asked for, cpu has {there // MIB} MiB" in caplog.text


@pytest.mark.parametrize(
    ("device_bytes", "used", "reserved", "asked_mib", "allowed_mib"),
    [
        (9728 * MIB, 400 * MIB, 0, 81920, 9728),  # a slice, told of its card
        (9728 * MIB, 400 * MIB, 0, 8000, 8000),
        (15360 * MIB, 8000 * MIB, 0, None, 15360 - 8000 + 1024),  # a neighbour on a shared card
        (15360 * MIB, 8000 * MIB, 7600 * MIB, None, 15360),  # all of it this process's own
    ],
)
def test_an_accelerator_has_what_others_leave(
    monkeypatch: pytest.MonkeyPatch,
    device_bytes: int,
    used: int,
    reserved: int,
    asked_mib: int | None,
    allowed_mib: int,
) -> None:
    """As such devices report themselves."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (device_bytes - used, device_bytes))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved)
    device = torch.device("cuda")
    assert allowed_bytes(asked_mib, device) == allowed_mib * MIB
    assert accelerator_bytes(device) == device_bytes
    assert own_bytes(used, reserved) == min(used, reserved + CONTEXT_BYTES)


def test_shrinking_gives_memory_back(smollm2: Path) -> None:
    config = EngineConfig(max_context=512, threads=1)
    with running(smollm2, config, exit_layers=(6,)) as engine:
        before = host_memory.anonymous_bytes()
        changed = limits_for(smollm2, generation=2, layer_budget=6, exit_layers=(6,))
        held = engine.set_limits(changed).result(60).capacity
        freed = before - host_memory.anonymous_bytes()
        layer = engine.serving.model.facts.layer_bytes
        assert freed > 0.9 * 24 * layer
        assert held.kv_capacity_tokens > 0
        assert len(send(engine, prompt_of(20), max_tokens=3, ignore_eos=True).result().output_ids) == 3


@pytest.mark.parametrize("kv_bytes", [64, 768, 8192])
def test_a_limit_in_mib_holds_the_rows_it_is_made_for(kv_bytes: int) -> None:
    """However small a row is; of large ones no further one, though a process starts a little larger."""
    facts = MemoryFacts(200_300_400, 57_000_001, 7_000_003, kv_bytes, 12_544, 196_608, 128, 16)
    asked = {"layers": 30, "tokens_per_request": 144}
    limit = limit_mib_for_rows(facts, rows=4, **asked) * MIB
    later = replace(facts, process_start_bytes=facts.process_start_bytes + 100_000)
    rows = [capacity(each, limit_bytes=limit, max_rows=128, **asked).rows for each in (facts, later)]
    assert rows[0] >= 4
    assert kv_bytes < 768 or rows == [4, 4]
