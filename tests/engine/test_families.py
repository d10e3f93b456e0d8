"""Families that are not built like Llama through the engine: windows by layer, learned positions, audits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_contract.limits import Audit
from helios_server.engine import offline
from helios_server.engine.limits import EngineConfig
from helios_server.engine.sampling import SamplingParams

from tests.checkpoints import make_checkpoint
from tests.engine.helpers import limits_for, prompt_of, running, send
from tests.engine.oracle import Library, transformers_greedy
from tests.engine.test_audit import BARE, audits, direct

NEW = ("opt", "gemma3_text")
EXACT = EngineConfig(dtype="float64", max_context=256, step_tokens=24, threads=1)
LENGTHS = (1, 15, 16, 17, 60, 130)


@pytest.mark.parametrize("family", NEW)
def test_in_short_steps_and_preempted_as_transformers(family: str, tmp_path: Path) -> None:
    """Prompts come in chunks, rows leave their pages and come again; texts grow far beyond the window."""
    path = make_checkpoint(tmp_path / family, family, layers=4, tied=False, seed=5)
    prompts = [prompt_of(length, seed) for seed, length in enumerate(LENGTHS)]
    with running(path, EXACT, exit_layers=(2,)) as engine:
        engine.at_boundary(lambda: engine.serving.resize(20)).result()
        streams = [send(engine, prompt, max_tokens=40, ignore_eos=True) for prompt in prompts]
        said = [list(stream.result().output_ids) for stream in streams]
        assert engine.telemetry().preemptions > 0
    assert said == [transformers_greedy(path, prompt, 40, 4, torch.float64) for prompt in prompts]


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-3), ("float16", 1e-3), ("bfloat16", 0.25)])
def test_streams_equal_the_plain_loop_in_every_format(
    family: str, dtype: str, near: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """near: how far apart two logits may be that bfloat16's sums, in another order, swap."""
    monkeypatch.setattr(offline, "NEAR_TIE", near)
    path = make_checkpoint(tmp_path / family, family, layers=3, tied=False, seed=6)
    sampling = {"max_tokens": 30, "ignore_eos": True}
    prompts = [prompt_of(length, seed) for seed, length in enumerate(LENGTHS[:5])]
    with running(path, replace(EXACT, dtype=dtype)) as engine:
        streams = [send(engine, prompt, **sampling) for prompt in prompts]
        events = [stream.result() for stream in streams]
    for prompt, event in zip(prompts, events, strict=True):
        Library(dtype).check(prompt, event, SamplingParams(**sampling))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", NEW)
def test_audits_equal_a_direct_pass(family: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / family, family, layers=6, seed=7)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((8, 30, 100, 150))]
    limits = {"layer_budget": 4, "exit_layers": (2, 4), "audit": Audit(100, (BARE,))}
    with running(path, EXACT, **limits) as engine:
        for prompt in prompts:
            send(engine, prompt, max_tokens=5, ignore_eos=True)
        rows = audits(engine, len(prompts))
    for ordinal, prompt in enumerate(prompts, start=1):
        assert rows[ordinal] == replace(direct(path, prompt, (BARE,)), request=ordinal)


def test_a_process_that_goes_from_one_family_to_another(tmp_path: Path) -> None:
    """Where the native kernels are there, from their format of keys and values to torch's, and back."""
    paths = [
        make_checkpoint(tmp_path / family, family, layers=3, tied=False, seed=8)
        for family in ("llama", "gemma3_text", "opt", "qwen3")
    ]
    sampling = {"max_tokens": 20, "ignore_eos": True}
    with running(paths[0], replace(EXACT, dtype="float16")) as engine:
        for generation, path in enumerate(paths, start=2):
            engine.set_limits(limits_for(path, generation=generation)).result(60)
            event = send(engine, prompt_of(40), **sampling).result()
            Library("float16").check(prompt_of(40), event, SamplingParams(**sampling))  # type: ignore[arg-type]
