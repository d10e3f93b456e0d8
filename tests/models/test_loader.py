"""Checkpoints and the layer-budget loader: what is read, what is resident, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_server.errors import CheckpointError, UnsupportedModelError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.rows import Stretch, rows_of
from helios_server.models.slabs import Scratch
from helios_server.models.step import Step, whole_sequences
from torch import Tensor

from tests.checkpoints import FAMILIES, VOCAB, make_checkpoint
from tests.models.changes import change_config


def logits(backbone: Backbone, ids: Tensor) -> Tensor:
    step = whole_sequences(backbone.layout, [len(ids)])
    hidden = backbone.run_layers(backbone.embed(ids, step.positions), 0, backbone.num_loaded, step)
    return backbone.logits(backbone.final_norm(hidden))


def stored_bytes(checkpoint: Checkpoint, layers: int) -> int:
    wanted = [
        name
        for name in checkpoint.names
        if not name.startswith("model.layers.") or int(name.split(".")[2]) < layers
    ]
    return sum(checkpoint.entry(name).nbytes for name in wanted)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [1, 3, 4])
def test_reads_the_layers_below_the_budget_and_no_others(tmp_path: Path, tied: bool, layers: int) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=4, tied=tied, dtype=torch.float16))
    backbone = Backbone.load(checkpoint, layers)
    assert backbone.num_loaded == layers
    assert checkpoint.bytes_read == stored_bytes(checkpoint, layers)


def test_loads_while_the_shard_of_the_upper_layers_is_missing(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, layers=4, shards=2)
    whole = logits(Backbone.load(Checkpoint.open(path), 2, dtype="float64"), torch.arange(9))
    (path / "model-00002-of-00002.safetensors").unlink()
    backbone = Backbone.load(Checkpoint.open(path), 2, dtype="float64")
    assert torch.equal(logits(backbone, torch.arange(9)), whole)
    with pytest.raises(CheckpointError, match=r"00002-of-00002.*missing"):
        backbone.load_layer(2)


def test_sharded_and_single_file_checkpoints_are_the_same_model(tmp_path: Path) -> None:
    single = Checkpoint.open(make_checkpoint(tmp_path / "single", layers=4))
    sharded = Checkpoint.open(make_checkpoint(tmp_path / "sharded", layers=4, shards=3))
    assert single.fingerprint == sharded.fingerprint
    ids = torch.arange(12)
    assert torch.equal(
        logits(Backbone.load(single, 4, dtype="float64"), ids),
        logits(Backbone.load(sharded, 4, dtype="float64"), ids),
    )


def test_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    prints = {
        Checkpoint.open(make_checkpoint(tmp_path / name, **options)).fingerprint  # type: ignore[arg-type]
        for name, options in {
            "first": {"seed": 1},
            "other weights": {"seed": 2},
            "other depth": {"seed": 1, "layers": 3},
            "other rope": {"seed": 1, "rope_theta": 5e5},
        }.items()
    }
    assert len(prints) == 4
    assert Checkpoint.open(tmp_path / "first").fingerprint in prints


def test_growing_and_shrinking_equal_a_fresh_load(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=4))
    ids = torch.arange(20)
    backbone = Backbone.load(checkpoint, 2, dtype="float64")
    backbone.attach([backbone.load_layer(2), backbone.load_layer(3)])
    assert torch.equal(logits(backbone, ids), logits(Backbone.load(checkpoint, 4, dtype="float64"), ids))
    backbone.truncate(1)
    assert torch.equal(logits(backbone, ids), logits(Backbone.load(checkpoint, 1, dtype="float64"), ids))


def test_layers_attach_without_a_gap_only(tmp_path: Path) -> None:
    backbone = Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, layers=4)), 1, dtype="float32")
    with pytest.raises(CheckpointError, match="attach"):
        backbone.attach([backbone.load_layer(2)])
    assert backbone.num_loaded == 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_resident_bytes_are_fixed_bytes_and_equal_layers(tmp_path: Path, dtype: str) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=3))
    by_depth = [Backbone.load(checkpoint, layers, dtype=dtype) for layers in (1, 2, 3)]
    for layers, backbone in enumerate(by_depth, start=1):
        assert backbone.resident_bytes == backbone.fixed_bytes + layers * backbone.layer_bytes
    assert by_depth[0].fixed_bytes == by_depth[2].fixed_bytes


def test_context_may_be_capped_below_the_models(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=1))
    small = Backbone.load(checkpoint, 1, dtype="float32", max_context=32)
    assert Backbone.load(checkpoint, 1, dtype="float32").fixed_bytes > small.fixed_bytes
    with pytest.raises(IndexError):
        small.rope(torch.tensor([32]))


@pytest.mark.parametrize("budget", [0, 5])
def test_refuses_a_budget_outside_the_depth(tmp_path: Path, budget: int) -> None:
    with pytest.raises(CheckpointError, match=r"layers: .* is outside 1\.\.4"):
        Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, layers=4)), budget)


def test_refuses_an_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="dtype: 'int8'"):
        Backbone.load(Checkpoint.open(make_checkpoint(tmp_path)), 1, dtype="int8")


class TestDamagedCheckpoints:
    def test_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such checkpoint directory"):
            Checkpoint.open(tmp_path / "absent")

    def test_missing_config(self, tmp_path: Path) -> None:
        (make_checkpoint(tmp_path) / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"config\.json: file is missing"):
            Checkpoint.open(tmp_path)

    def test_missing_weights(self, tmp_path: Path) -> None:
        (make_checkpoint(tmp_path) / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="holds neither"):
            Checkpoint.open(tmp_path)

    @pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
    def test_truncated_weights(self, tmp_path: Path, keep: float) -> None:
        file = make_checkpoint(tmp_path) / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: is"):
            Checkpoint.open(tmp_path)

    def test_missing_tensor(self, tmp_path: Path) -> None:
        path = make_checkpoint(tmp_path, layers=2, tied=True)
        change_config(path, tie_word_embeddings=False)
        with pytest.raises(CheckpointError, match=r"tensor 'lm_head\.weight' is missing"):
            Backbone.load(Checkpoint.open(path), 1)

    def test_missing_tensor_of_a_layer(self, tmp_path: Path) -> None:
        path = make_checkpoint(tmp_path, layers=2)
        change_config(path, attention_bias=True)
        with pytest.raises(CheckpointError, match=r"model\.layers\.0\.self_attn\.q_proj\.bias"):
            Backbone.load(Checkpoint.open(path), 1)

    def test_layers_that_config_promises_and_weights_lack(self, tmp_path: Path) -> None:
        path = make_checkpoint(tmp_path, layers=2)
        change_config(path, num_hidden_layers=3)
        with pytest.raises(CheckpointError, match="no tensors of layer 2"):
            Backbone.load(Checkpoint.open(path), 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("hidden_act", "gelu"),
        ("num_key_value_heads", 3),
        ("hidden_size", None),
        ("partial_rotary_factor", 0.5),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_refuses_what_the_block_cannot_do_by_field(tmp_path: Path, field: str, value: object) -> None:
    change_config(make_checkpoint(tmp_path), **{field: value})
    with pytest.raises(UnsupportedModelError) as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.field == field
    assert caught.value.fix


def test_refuses_rope_types_that_are_not_built(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(UnsupportedModelError, match="yarn"):
        Checkpoint.open(path)


def test_context_is_clipped_to_the_sliding_window(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, "mistral", sliding_window=128)
    assert Checkpoint.open(path).config.max_context == 128


class TestBatchIndependence:
    """On the CPU's float16 path a row's result is the same, bit for bit, whatever rows are beside it."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_of_a_layer(self, tmp_path: Path, family: str) -> None:
        """At sizes that divide by nothing."""
        inner = {"ffn_dim" if family == "opt" else "intermediate_size": 101}
        backbone = Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, family, layers=2, **inner)), 2)
        ids = torch.randint(VOCAB, (33,), generator=torch.Generator().manual_seed(0))
        slabs = Scratch(backbone.layout, [100] * 33, shared=False)
        rows = [Stretch(3 * i, 1, slabs.pages_of[i]) for i in range(33)]

        def run(stretches: list[Stretch], ids: Tensor) -> Tensor:
            step = Step(rows_of(stretches, 16), slabs)
            return backbone.run_layers(backbone.embed(ids, step.positions), 0, 2, step)

        alone = [run([row], ids[i : i + 1]) for i, row in enumerate(rows)]
        assert torch.equal(torch.cat(alone), run(rows, ids))

    def test_of_the_head(self, tmp_path: Path) -> None:
        backbone = Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, layers=1)), 1)
        hidden = backbone.embed(torch.arange(64), torch.arange(64))
        whole = backbone.logits(backbone.final_norm(hidden))
        for rows in (1, 2, 7, 31):
            assert torch.equal(backbone.logits(backbone.final_norm(hidden[:rows])), whole[:rows])
