"""Tensors and config.json are compared before anything is read: what does not fit is named, and what
transformers reads is read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from helios_server.errors import CheckpointError, UnsupportedModelError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.checkpoints import HEAD_DIM, HIDDEN, VOCAB, make_checkpoint
from tests.models.changes import change_config, change_tensors, rename_tensors, tensors_of
from tests.models.test_loader import logits

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IDS = torch.arange(3, 40)


def ours(path: Path) -> Tensor:
    checkpoint = Checkpoint.open(path)
    return logits(Backbone.load(checkpoint, checkpoint.config.num_layers, dtype="float64"), IDS)


def theirs(path: Path) -> Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)(IDS[None]).logits[0]


def refused(path: Path) -> str:
    """The message; one line, and before any tensor is read."""
    with pytest.raises((CheckpointError, UnsupportedModelError)) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be loaded" not in message
    return message


def ones(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.ones(shape, dtype=dtype)


WRONG_SHAPES = {
    EMBEDDING: (300, HIDDEN),
    "model.norm.weight": (1,),
    "model.layers.0.input_layernorm.weight": (1,),
    "model.layers.3.post_attention_layernorm.weight": (HIDDEN + 1,),
    "model.layers.1.mlp.up_proj.weight": (127, HIDDEN),
    "model.layers.2.self_attn.k_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.3.self_attn.o_proj.weight": (HIDDEN, HIDDEN, 1),
    "model.layers.0.mlp.down_proj.weight": (128, HIDDEN),
}


class TestShapesAndDtypes:
    @pytest.mark.parametrize("name", WRONG_SHAPES)
    def test_a_wrong_shape_is_named_with_the_right_one(self, tmp_path: Path, name: str) -> None:
        right = tensors_of(make_checkpoint(tmp_path, layers=4))[name].shape
        change_tensors(tmp_path, {name: ones(*WRONG_SHAPES[name])})
        message = refused(tmp_path)
        assert f"'{name}' is {list(WRONG_SHAPES[name])}" in message
        assert f"config.json says {list(right)}" in message

    def test_above_a_budget_and_in_other_shards_too(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        change_config(tmp_path, intermediate_size=64)
        assert "'model.layers.0.mlp.gate_proj.weight' is [128, 64], config.json says [64, 64]" in refused(
            tmp_path
        )

    @pytest.mark.parametrize(
        "field", ["head_dim", "num_attention_heads", "num_key_value_heads", "vocab_size"]
    )
    def test_a_config_of_another_model(self, tmp_path: Path, field: str) -> None:
        wrong = {"head_dim": 32, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": VOCAB + 1}
        change_config(make_checkpoint(tmp_path), **{field: wrong[field]})
        assert "config.json says" in refused(tmp_path)

    def test_a_head_of_its_own_is_checked(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, tied=False)
        change_tensors(tmp_path, {HEAD: ones(VOCAB, HIDDEN - 1)})
        assert f"'{HEAD}' is [320, 63]" in refused(tmp_path)

    def test_qk_norms_are_checked(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, "qwen3")
        change_tensors(tmp_path, {"model.layers.1.self_attn.q_norm.weight": ones(1)})
        assert f"config.json says [{HEAD_DIM}]" in refused(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
    def test_weights_that_are_no_floats(self, tmp_path: Path, dtype: torch.dtype) -> None:
        make_checkpoint(tmp_path)
        name = "model.layers.1.mlp.up_proj.weight"
        change_tensors(tmp_path, {name: torch.zeros(128, HIDDEN).to(dtype)})
        message = refused(tmp_path)
        assert f"'{name}' has dtype" in message
        assert "BF16" in message

    def test_float_dtypes_may_be_mixed(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path)
        name = "model.norm.weight"
        change_tensors(tmp_path, {name: tensors_of(tmp_path)[name].bfloat16()})
        assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8

    @pytest.mark.parametrize(
        ("suffix", "dtype", "method"),
        [
            ("g_idx", torch.int32, "GPTQ"),
            ("qweight", torch.int32, "AWQ"),
            ("weight.absmax", torch.float32, "bitsandbytes"),
            ("SCB", torch.float32, "bitsandbytes"),
            ("weight_scale_inv", torch.float32, "fp8"),
            ("weight_packed", torch.int32, "compressed-tensors"),
        ],
    )
    def test_quantised_weights_by_their_method(
        self, tmp_path: Path, suffix: str, dtype: torch.dtype, method: str
    ) -> None:
        make_checkpoint(tmp_path)
        change_tensors(tmp_path, {f"model.layers.0.mlp.up_proj.{suffix}": ones(2, dtype=dtype)})
        message = refused(tmp_path)
        assert message.startswith("quantization_config: ")
        assert method in message

    @pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "mxfp4", 8])
    def test_a_config_that_says_so(self, tmp_path: Path, method: object) -> None:
        change_config(make_checkpoint(tmp_path), quantization_config={"quant_method": method, "bits": 4})
        message = refused(tmp_path)
        assert message.startswith("quantization_config.quant_method: ")
        assert f"found {json.dumps(method)}, expected compressed-tensors" in message


class TestTheRightTensors:
    @pytest.mark.parametrize(
        "name",
        [
            EMBEDDING,
            "model.norm.weight",
            "model.layers.3.mlp.up_proj.weight",
            "model.layers.1.input_layernorm.weight",
        ],
    )
    def test_a_missing_tensor(self, tmp_path: Path, name: str) -> None:
        make_checkpoint(tmp_path, layers=4)
        change_tensors(tmp_path, {name: None})
        assert f"tensor '{name}' is missing" in refused(tmp_path)

    def test_layers_that_config_does_not_know(self, tmp_path: Path) -> None:
        change_config(make_checkpoint(tmp_path, layers=4), num_hidden_layers=3)
        assert "holds tensors of layer 3, num_hidden_layers says 3" in refused(tmp_path)

    def test_a_missing_layer_and_very_many(self, tmp_path: Path) -> None:
        change_config(make_checkpoint(tmp_path, layers=4), num_hidden_layers=2**31 - 1)
        assert "holds no tensors of layer 4" in refused(tmp_path)

    @pytest.mark.parametrize(("family", "part"), [("llama", "mlp.up_proj"), ("mistral", "self_attn.q_proj")])
    def test_a_bias_that_config_does_not_know(self, tmp_path: Path, family: str, part: str) -> None:
        make_checkpoint(tmp_path, family)
        change_tensors(tmp_path, {f"model.layers.0.{part}.bias": ones(HIDDEN)})
        assert f"'model.layers.0.{part}.bias' is part of no layer" in refused(tmp_path)

    def test_a_bias_that_config_promises(self, tmp_path: Path) -> None:
        change_config(make_checkpoint(tmp_path), mlp_bias=True)
        assert "'model.layers.0.mlp.gate_proj.bias' is missing, expected [128]" in refused(tmp_path)

    def test_what_stands_beside_the_model_is_ignored_and_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_checkpoint(tmp_path)
        rotary = "model.layers.0.self_attn.rotary_emb.inv_freq"
        change_tensors(tmp_path, {"v_head.weight": ones(3, dtype=torch.int64), rotary: ones(8)})
        with caplog.at_level(logging.WARNING):
            assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8
        assert "v_head.weight" in caplog.text


class TestPaddedVocabulary:
    @pytest.mark.parametrize("tied", [True, False])
    def test_rows_beyond_the_vocabulary_are_not_read(self, tmp_path: Path, tied: bool) -> None:
        expected = ours(make_checkpoint(tmp_path, tied=tied))
        tensors = tensors_of(tmp_path)
        padded = {
            name: torch.cat([tensors[name], 9 * ones(64, HIDDEN)])
            for name in (EMBEDDING, HEAD)
            if name in tensors
        }
        change_tensors(tmp_path, padded)
        assert ours(tmp_path).shape == (len(IDS), VOCAB)
        assert torch.equal(ours(tmp_path), expected)


class TestNames:
    """As transformers 5 reads them, where that leaves no doubt."""

    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("change", ["without model.", "model. twice", "mixed"])
    def test_of_a_base_model(self, tmp_path: Path, tied: bool, change: str) -> None:
        make_checkpoint(tmp_path, layers=2, tied=tied)
        before = Checkpoint.open(tmp_path).fingerprint
        names = [name for name in tensors_of(tmp_path) if name.startswith("model.")]
        if change == "mixed":
            names = [name for name in names if "layers.1" in name]
        rename_tensors(
            tmp_path,
            {
                name: f"model.{name}" if change == "model. twice" else name.removeprefix("model.")
                for name in names
            },
        )
        assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8
        assert Checkpoint.open(tmp_path).fingerprint == before

    @pytest.mark.parametrize("prefix", ["module.", "base_model.model.", "transformer."])
    def test_another_prefix_is_named(self, tmp_path: Path, prefix: str) -> None:
        make_checkpoint(tmp_path)
        rename_tensors(tmp_path, {name: prefix + name for name in tensors_of(tmp_path)})
        message = refused(tmp_path)
        assert "expected tensor names such as 'model.layers.0.input_layernorm.weight'" in message
        assert f"found '{prefix}model." in message
        assert f"without '{prefix}'" in message

    def test_names_of_another_architecture(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path)
        names = list(tensors_of(tmp_path))
        rename_tensors(tmp_path, {name: f"h.{index}.attn.c_attn" for index, name in enumerate(names)})
        message = refused(tmp_path)
        assert "found 'h.0.attn.c_attn'" in message
        assert "save_pretrained" in message

    def test_one_tensor_under_two_names(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path)
        change_tensors(tmp_path, {"norm.weight": ones(HIDDEN)})
        assert "are the same tensor" in refused(tmp_path)


class TestTiedHeads:
    """As transformers 5 does."""

    def test_another_head_in_the_file_counts_and_the_log_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        plain = ours(make_checkpoint(tmp_path, tied=True))
        change_tensors(tmp_path, {HEAD: tensors_of(tmp_path)[EMBEDDING].flip(0)})
        with caplog.at_level(logging.WARNING):
            found = ours(tmp_path)
        assert (found - theirs(tmp_path)).abs().max() < 1e-8
        assert (found - plain).abs().max() > 1
        assert "another lm_head.weight" in caplog.text

    def test_one_that_differs_in_its_last_element_counts(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, tied=True)
        head = tensors_of(tmp_path)[EMBEDDING].clone()
        head[-1, -1] += 1
        change_tensors(tmp_path, {HEAD: head})
        assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8

    def test_the_same_head_twice_is_held_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        make_checkpoint(tmp_path, tied=True)
        alone = Backbone.load(Checkpoint.open(tmp_path), 1, dtype="float32").fixed_bytes
        change_tensors(tmp_path, {HEAD: tensors_of(tmp_path)[EMBEDDING].clone()})
        with caplog.at_level(logging.WARNING):
            assert Backbone.load(Checkpoint.open(tmp_path), 1, dtype="float32").fixed_bytes == alone
        assert not caplog.text

    def test_a_head_alone_embeds_too(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, tied=True)
        rename_tensors(tmp_path, {EMBEDDING: HEAD})
        assert (ours(tmp_path) - theirs(tmp_path)).abs().max() < 1e-8

    def test_no_head_where_it_is_not_tied_is_refused(self, tmp_path: Path) -> None:
        change_config(make_checkpoint(tmp_path, tied=True), tie_word_embeddings=False)
        message = refused(tmp_path)
        assert f"tensor '{HEAD}' is missing, expected [320, 64]" in message
        assert "tie_word_embeddings" in message
