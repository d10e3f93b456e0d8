"""What is served natively: the same bits alone, in a crowd, preempted and by the plain loop; audits that
equal a direct pass; keys and values in a format that holds them; a tied embedding that is held once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_contract.limits import Audit
from helios_server.engine.limits import EngineConfig
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.native_path import NativeLayer
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.engine.company import answers, ask, ask_one_by_one, asked, serving
from tests.engine.helpers import prompt_of, running, send
from tests.engine.natives import TORCH, computing_with, every_format, load, needs_kernels
from tests.engine.oracle import Library
from tests.engine.test_audit import BARE, audits, direct
from tests.native.libraries import every_isa


def formats(backbone: Backbone) -> list[torch.dtype]:
    """Of each layer's keys and values."""
    layers = [layer for layer in backbone.layers if isinstance(layer, NativeLayer)]
    assert len(layers) == backbone.num_loaded
    return [layer.keys_and_values for layer in layers]


@every_isa
@every_format
def test_a_request_is_the_same_alone_in_a_crowd_preempted_and_offline(
    tiny: Path, isa: str, dtype: str
) -> None:
    with computing_with(isa):
        with serving(tiny, dtype) as engine:
            assert engine.serving.weights.backbone.is_native
            alone = answers(ask_one_by_one(engine))
            assert answers(ask(engine)) == alone
            engine.at_boundary(lambda: engine.serving.resize(12)).result()
            streams = ask(engine)
            assert answers(streams) == alone
            assert engine.telemetry().preemptions > 0
        library = Library(dtype)
        for (prompt, _, sampling), stream in zip(asked(), streams, strict=True):
            library.check(prompt, stream.result(), sampling)


@needs_kernels
@every_format
def test_the_plain_loop_has_no_near_ties_natively(tiny: Path, dtype: str) -> None:
    """One wrong token is found, however close the logits were."""
    with serving(tiny, dtype) as engine:
        end = send(engine, prompt_of(20), max_tokens=12, ignore_eos=True).result()
    *first, last = end.output_ids
    with pytest.raises(AssertionError):
        Library(dtype).check(prompt_of(20), replace(end, output_ids=(*first, last ^ 1)))


@needs_kernels
@every_format
@pytest.mark.parametrize("budget", [2, 6])
def test_audits_equal_a_direct_pass(tiny: Path, dtype: str, budget: int) -> None:
    """Bit by bit, though their prompts come in chunks, in a crowd, and are scored in stretches of a batch."""
    config = EngineConfig(dtype=dtype, max_context=256, step_tokens=40)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((8, 100, 31, 9, 150, 33))]
    limits = {"layer_budget": budget, "exit_layers": (2, 4), "audit": Audit(100, (BARE,))}
    with running(tiny, config, **limits) as engine:
        for prompt in prompts:
            send(engine, prompt, max_tokens=20, ignore_eos=True)
        rows = audits(engine, len(prompts))
    for ordinal, prompt in enumerate(prompts, start=1):
        assert rows[ordinal] == replace(direct(tiny, prompt, (BARE,), dtype), request=ordinal)


# -- keys and values -----------------------------------------------------------------------------------------


def with_large_keys(path: Path, layer: int, factor: float) -> Path:
    """Keys grow and queries shrink by the factor: what comes out stays the same, if it can be computed."""
    file = path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors[f"model.layers.{layer}.self_attn.k_proj.weight"] *= factor
    tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] /= factor
    save_file(tensors, file, metadata={"format": "pt"})
    return path


@needs_kernels
def test_a_layer_whose_keys_may_leave_float16s_range_keeps_bfloat16(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_large_keys(make_checkpoint(tmp_path, layers=4, tied=False, seed=7), 2, 2.0**15)
    with caplog.at_level(logging.INFO):
        backbone = load(path, "float16")
    kept = formats(backbone)
    assert kept == [torch.float16, torch.float16, torch.bfloat16, torch.float16]
    assert "layer 2 keeps bfloat16 keys and values" in caplog.text
    assert set(formats(load(path, "bfloat16"))) == {torch.bfloat16}
    with running(path, EngineConfig(dtype="float16", max_context=128)) as engine:
        prompts = [prompt_of(length) for length in (5, 40)]
        streams = [send(engine, prompt, max_tokens=20, ignore_eos=True) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            Library("float16").check(prompt, stream.result())


@needs_kernels
def test_what_a_layer_keeps_does_not_depend_on_the_budget(tmp_path: Path) -> None:
    path = with_large_keys(make_checkpoint(tmp_path, layers=4, tied=False, seed=7), 3, 2.0**15)
    checkpoint = Checkpoint.open(path)
    shallow = Backbone.load(checkpoint, 2, dtype="float16")
    shallow.attach([shallow.load_layer(2), shallow.load_layer(3)])
    whole = Backbone.load(checkpoint, 4, dtype="float16")
    assert formats(shallow) == formats(whole)


# -- what is held --------------------------------------------------------------------------------------------


@needs_kernels
@every_format
@pytest.mark.parametrize("tied", [True, False])
def test_nothing_is_held_twice_and_nothing_is_padded(tmp_path: Path, dtype: str, tied: bool) -> None:
    """Sizes that fbgemm would pad to 512."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64, "num_attention_heads": 9}
    sizes |= {"num_key_value_heads": 3, "vocab_size": 2048}
    path = make_checkpoint(tmp_path, layers=1, tied=tied, **sizes)
    backbone = load(path, dtype)
    elements = 576 * (2 * 576 + 2 * 192) + 3 * 576 * 1536
    assert backbone.layer_bytes == pytest.approx(2 * elements, rel=0.01)
    tables = 2048 * 576 * (1 if tied else 2)
    rope = 2 * 4 * 32 * backbone.config.max_context
    assert backbone.fixed_bytes == pytest.approx(2 * tables + rope, rel=0.01)
    assert backbone.layout.page_bytes == 2 * 2 * 192 * 16


@needs_kernels
def test_a_block_that_the_kernels_do_not_know_is_torchs(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ModelConfig, "plain_block", False)
    with caplog.at_level(logging.INFO):
        backbone = Backbone.load(Checkpoint.open(tiny), 1, dtype="float16")
    assert not backbone.is_native
    assert "torch computes it, native kernels do not know its block" in caplog.text


@needs_kernels
def test_without_kernels_a_model_is_served_by_torch(tiny: Path) -> None:
    with computing_with(TORCH), running(tiny, EngineConfig(dtype="float16", max_context=128)) as engine:
        assert not engine.serving.weights.backbone.is_native
        end = send(engine, prompt_of(30), max_tokens=20, ignore_eos=True).result()
        Library("float16").check(prompt_of(30), end)
