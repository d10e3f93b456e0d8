"""What OPT and Gemma 3 have that Llama has not: as transformers reads it, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.errors import CheckpointError, UnsupportedModelError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.prune import drop_layers
from transformers import AutoModelForImageTextToText, Gemma3Config, Gemma3ForConditionalGeneration

from tests.checkpoints import HEAD_DIM, HIDDEN, WINDOW, make_checkpoint
from tests.models.changes import change_config, change_tensors, rename_tensors, tensors_of
from tests.models.test_layout import IDS, ours, theirs

NEW = ("opt", "gemma3_text")
FULL, SLIDING = "full_attention", "sliding_attention"
DEFAULT = {"rope_type": "default"}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
OWN_ROPES = ("rope_theta", "rope_local_base_freq")


def _opt(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    """As the published files have it."""
    return {
        "_remove_final_layer_norm": False, "activation_function": "relu", "attention_dropout": 0.0,
        "bos_token_id": 2, "do_layer_norm_before": True, "eos_token_id": 2, "ffn_dim": 4 * hidden,
        "hidden_size": hidden, "max_position_embeddings": 2048, "model_type": "opt",
        "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 1, "prefix": "</s>",
        "vocab_size": 50272, "word_embed_proj_dim": hidden,
    }  # fmt: skip


def _gemma(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    """The same."""
    return {
        "attention_bias": False, "attn_logit_softcapping": None, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": None,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": hidden,
        "intermediate_size": 6 * hidden, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "vocab_size": 262144,
    }  # fmt: skip


def same_as_transformers(path: Path) -> None:
    assert (ours(path) - theirs(path)).abs().max() < 1e-8


class TestAsTransformers:
    @pytest.mark.parametrize(
        "absent",
        [
            ("tie_word_embeddings",),
            ("activation_function", "do_layer_norm_before"),
            ("word_embed_proj_dim", "eos_token_id"),
        ],
    )
    def test_what_opt_leaves_out(self, tmp_path: Path, absent: tuple[str, ...]) -> None:
        change_config(make_checkpoint(tmp_path, "opt"), absent)
        same_as_transformers(tmp_path)
        assert Checkpoint.open(tmp_path).config.eos_token_ids == (257 if "eos_token_id" not in absent else 2,)

    @pytest.mark.parametrize("field", ["tie_word_embeddings", "hidden_activation", "max_position_embeddings"])
    def test_what_gemma_leaves_out(self, tmp_path: Path, field: str) -> None:
        change_config(make_checkpoint(tmp_path, "gemma3_text"), (field,))
        same_as_transformers(tmp_path)

    def test_gemmas_scalar_period_and_bases(self, tmp_path: Path) -> None:
        """Seven layers, as the period is six; a window that is shorter than the text."""
        make_checkpoint(tmp_path, "gemma3_text", layers=7)
        change_config(tmp_path, ("query_pre_attn_scalar", "sliding_window_pattern", *OWN_ROPES))
        same_as_transformers(tmp_path)
        config = Checkpoint.open(tmp_path).config
        assert [config.window(layer) for layer in range(7)] == [*[WINDOW] * 5, None, WINDOW]
        assert [base.theta for base in config.ropes] == [1e6, 1e4]

    def test_gemmas_sizes(self) -> None:
        config = ModelConfig.from_hf(
            {
                "model_type": "gemma3_text",
                "hidden_size": 1152,
                "num_hidden_layers": 26,
                "num_attention_heads": 4,
                "intermediate_size": 6912,
                "vocab_size": 262144,
            }
        )
        assert (config.head_dim, config.num_kv_heads, config.query_scale) == (256, 4, 1.0)
        assert (config.max_context, config.window(0)) == (131072, 4096)
        assert config.eos_token_ids == (1,)
        assert config.tied_embeddings

    def test_the_published_ones(self) -> None:
        """As far as it matters here: OPT of 125 M and 6.7 B parameters, Gemma 3 of 270 M, 1 B and 27 B."""
        opt, large = (ModelConfig.from_hf(_opt(*sizes)) for sizes in ((768, 12, 12), (4096, 32, 32)))
        assert (opt.head_dim, opt.intermediate_size, opt.max_context) == (64, 3072, 2048)
        assert (large.head_dim, large.num_layers, large.tied_embeddings) == (128, 32, True)
        with pytest.raises(UnsupportedModelError, match="do_layer_norm_before: false"):
            ModelConfig.from_hf(
                _opt(1024, 24, 16) | {"do_layer_norm_before": False, "word_embed_proj_dim": 512}
            )
        small, one = (ModelConfig.from_hf(_gemma(*sizes)) for sizes in ((640, 18, 4), (1152, 26, 4)))
        assert [layer for layer in range(18) if small.window(layer) is None] == [5, 11, 17]
        assert (one.window(0), one.max_context, one.eos_token_ids) == (512, 32768, (1, 106))
        text = _gemma(5376, 62, 32) | {"query_pre_attn_scalar": 168, "head_dim": 128, "rope_scaling": {
            "factor": 8.0, "rope_type": "linear"}}  # fmt: skip
        huge = ModelConfig.from_hf(text)
        assert huge.query_scale * huge.head_dim**-0.5 == pytest.approx(168**-0.5)
        assert [base.scaling is None for base in huge.ropes] == [False, True]

    def test_what_old_conversions_of_opt_hold_beside_the_model(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, "opt")
        change_tensors(tmp_path, {"model.decoder.version": torch.ones(1)})
        same_as_transformers(tmp_path)

    @pytest.mark.parametrize(
        "kinds", [[FULL, SLIDING, SLIDING, FULL], [SLIDING] * 4, [FULL] * 4, [SLIDING, FULL] * 2]
    )
    def test_layer_types(self, tmp_path: Path, kinds: list[str]) -> None:
        """They count before the period."""
        change_config(make_checkpoint(tmp_path, "gemma3_text"), layer_types=kinds)
        same_as_transformers(tmp_path)

    @pytest.mark.parametrize("window", [1, 2, 36, 37, 1000])
    def test_windows(self, tmp_path: Path, window: int) -> None:
        change_config(make_checkpoint(tmp_path, "gemma3_text"), sliding_window=window)
        same_as_transformers(tmp_path)

    @pytest.mark.parametrize(
        "fields",
        [
            {
                "rope_parameters": {
                    FULL: DEFAULT | {"rope_theta": 3e4},
                    SLIDING: DEFAULT | {"rope_theta": 7e2},
                }
            },
            {"rope_parameters": {FULL: DEFAULT | {"rope_theta": 3e4}}},
            {"rope_parameters": {FULL: DEFAULT, SLIDING: DEFAULT}},
            {"rope_parameters": {FULL: LINEAR, SLIDING: None}},
            {"rope_parameters": {SLIDING: LINEAR}},
            {"rope_parameters": {FULL: {"type": "linear", "factor": 2.0}, SLIDING: LLAMA3}},
            {"rope_parameters": {FULL: DEFAULT}, "rope_scaling": LINEAR},
            {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}},
            {"rope_scaling": LINEAR},
            {"rope_scaling": LLAMA3},
            {"rope_scaling": None, "rope_parameters": None},
        ],
    )
    @pytest.mark.parametrize("own", [True, False])
    def test_two_bases(self, tmp_path: Path, fields: dict[str, Any], own: bool) -> None:
        make_checkpoint(tmp_path, "gemma3_text")
        change_config(tmp_path, () if own else OWN_ROPES, **fields)
        same_as_transformers(tmp_path)

    @pytest.mark.parametrize("family", NEW)
    @pytest.mark.parametrize("change", ["without model.", "model. twice"])
    def test_names_of_a_base_model(self, tmp_path: Path, family: str, change: str) -> None:
        make_checkpoint(tmp_path, family, layers=2)
        before = Checkpoint.open(tmp_path).fingerprint
        twice = change == "model. twice"
        renamed = {n: f"model.{n}" if twice else n.removeprefix("model.") for n in tensors_of(tmp_path)}
        rename_tensors(tmp_path, renamed)
        same_as_transformers(tmp_path)
        assert Checkpoint.open(tmp_path).fingerprint == before

    @pytest.mark.parametrize("family", NEW)
    def test_shards(self, tmp_path: Path, family: str) -> None:
        one = make_checkpoint(tmp_path / "one", family)
        three = make_checkpoint(tmp_path / "three", family, shards=3)
        same_as_transformers(three)
        assert Checkpoint.open(one).fingerprint == Checkpoint.open(three).fingerprint

    @pytest.mark.parametrize("family", NEW)
    def test_with_layers_left_out(self, tmp_path: Path, family: str) -> None:
        """A layer that slides goes on sliding, whatever its new number."""
        source = make_checkpoint(tmp_path / "source", family, layers=5)
        target = drop_layers(source, tmp_path / "target", [0, 3])
        same_as_transformers(target)
        whole, rest = Checkpoint.open(source).config, Checkpoint.open(target).config
        assert [rest.window(layer) for layer in range(3)] == [whole.window(layer) for layer in (1, 2, 4)]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_embedding_is_scaled_by_the_rounded_root(self, tmp_path: Path, dtype: torch.dtype) -> None:
        """Of 72, which no half precision holds; our fp16 format goes on in float32."""
        path = make_checkpoint(tmp_path, "gemma3_text", layers=1, tied=False, hidden_size=72)
        backbone = Backbone.load(Checkpoint.open(path), 1, dtype=str(dtype).removeprefix("torch."))
        ids, scale = torch.arange(9), torch.tensor(72**0.5, dtype=dtype)
        assert backbone.embedding is not None
        wanted = backbone.embedding[ids].to(backbone.numerics.activations) * scale
        assert float(scale) != 72**0.5
        assert torch.equal(backbone.embed(ids, ids), wanted)


OPT_REFUSED: list[tuple[str, object, str]] = [
    ("activation_function", "gelu", "only relu"),
    ("activation_function", "swish", "only relu"),
    ("do_layer_norm_before", False, "only true"),
    ("do_layer_norm_before", 0, "only true"),
    ("_remove_final_layer_norm", True, "only false"),
    ("layer_norm_elementwise_affine", False, "only true"),
    ("word_embed_proj_dim", 32, "only hidden_size 64"),
    ("word_embed_proj_dim", "64", "a positive integer"),
    ("enable_bias", "no", "true or false"),
    ("ffn_dim", None, "a positive integer"),
    ("hidden_size", {"num_attention_heads": 5}, "no multiple of num_attention_heads 5"),
    ("quantization_config", "gptq", "gptq"),
]
GEMMA_REFUSED: list[tuple[str, object, str]] = [
    ("hidden_activation", "gelu", "only gelu_pytorch_tanh"),
    ("hidden_activation", "silu", "only gelu_pytorch_tanh"),
    ("attn_logit_softcapping", 50.0, "only null"),
    ("final_logit_softcapping", 30.0, "only null"),
    ("use_bidirectional_attention", True, "only false"),
    ("query_pre_attn_scalar", 0, "above 0"),
    ("query_pre_attn_scalar", "256", "above 0"),
    ("sliding_window", None, "found null"),
    ("sliding_window", 0, "a positive integer"),
    ("sliding_window_pattern", 0, "a positive integer"),
    ("sliding_window_pattern", 1.5, "a positive integer"),
    ("layer_types", [SLIDING], "lists 1 layers, num_hidden_layers says 4"),
    ("layer_types", [SLIDING, FULL, "chunked_attention", FULL], "expected a list of"),
    ("layer_types", SLIDING, "expected a list of"),
    ("rope_local_base_freq", -1, "above 0"),
    ("rope_parameters", {"rope_parameters": {"rope_type": "default"}}, "full_attention"),
    ("rope_parameters", "default", "full_attention"),
    ("rope_parameters.full_attention", {"rope_parameters": {FULL: 3}}, "an object"),
    ("rope_parameters.sliding_attention.rope_type", {"rope_parameters": {SLIDING: {"rope_type": "yarn"}}},
     '"yarn" is not supported'),
    ("rope_parameters.full_attention.rope_theta", {"rope_parameters": {FULL: {"rope_theta": None}}},
     "above 0"),
    ("rope_scaling.type", {"rope_scaling": {"type": "linear", "factor": 8.0}}, "expected it as rope_type"),
    ("rope_scaling.factor", {"rope_scaling": {"rope_type": "linear"}}, "above 0"),
    ("partial_rotary_factor", 0.5, "only 1.0"),
    ("head_dim", 15, "odd"),
]  # fmt: skip


class TestRefusedByName:
    @pytest.mark.parametrize(("field", "value", "said"), OPT_REFUSED)
    def test_of_opt(self, tmp_path: Path, field: str, value: object, said: str) -> None:
        self.refused(make_checkpoint(tmp_path, "opt"), field, value, said)

    @pytest.mark.parametrize(("field", "value", "said"), GEMMA_REFUSED)
    def test_of_gemma(self, tmp_path: Path, field: str, value: object, said: str) -> None:
        self.refused(make_checkpoint(tmp_path, "gemma3_text"), field, value, said)

    def refused(self, path: Path, field: str, value: object, said: str) -> None:
        change_config(path, **(value if isinstance(value, dict) else {field: value}))
        with pytest.raises(UnsupportedModelError) as caught:
            Checkpoint.open(path)
        assert caught.value.field == field
        assert said in caught.value.problem
        assert caught.value.fix

    @pytest.mark.parametrize(
        ("model_type", "fix"),
        [
            ("gemma3", "Save its language model alone"),
            ("gemma2", "gemma3_text"),
            ("gemma", "opt"),
            ("gemma3n_text", "Use a model of"),
            ("gpt2", "Use a model of"),
        ],
    )
    def test_relatives(self, tmp_path: Path, model_type: str, fix: str) -> None:
        text = {"text_config": {"model_type": "gemma3_text", "hidden_size": HIDDEN}}
        change_config(make_checkpoint(tmp_path, "gemma3_text"), model_type=model_type, **text)
        with pytest.raises(UnsupportedModelError, match=f"'{model_type}' is not supported") as caught:
            Checkpoint.open(tmp_path)
        assert caught.value.field == "model_type"
        assert fix in caught.value.fix

    def test_images_until_the_language_model_is_saved_alone(self, tmp_path: Path) -> None:
        """The fix that the refusal names, and what it comes to."""
        text = json.loads((make_checkpoint(tmp_path / "t", "gemma3_text") / "config.json").read_text())
        vision = {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        vision |= {"image_size": 28, "patch_size": 14}
        config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        Gemma3ForConditionalGeneration(config).double().save_pretrained(tmp_path / "images")
        with pytest.raises(UnsupportedModelError, match=r"language_model\.save_pretrained"):
            Checkpoint.open(tmp_path / "images")
        whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "images")
        whole.model.language_model.save_pretrained(tmp_path / "alone")
        with torch.no_grad():
            wanted = whole(IDS[None]).logits[0]
        assert (ours(tmp_path / "alone") - wanted).abs().max() < 1e-8

    WRONG_SHAPES = (
        ("opt", "model.decoder.embed_positions.weight", (512, HIDDEN), [514, HIDDEN]),
        ("opt", "model.decoder.final_layer_norm.bias", (1,), [HIDDEN]),
        ("opt", "model.decoder.layers.1.fc1.weight", (127, HIDDEN), [128, HIDDEN]),
        ("opt", "model.decoder.layers.3.self_attn_layer_norm.bias", (1,), [HIDDEN]),
        ("gemma3_text", "model.layers.2.post_feedforward_layernorm.weight", (1,), [HIDDEN]),
        ("gemma3_text", "model.layers.0.self_attn.k_norm.weight", (HIDDEN,), [HEAD_DIM]),
    )

    @pytest.mark.parametrize(("family", "name", "shape", "right"), WRONG_SHAPES)
    def test_a_tensor_that_does_not_fit_or_is_missing(
        self, tmp_path: Path, family: str, name: str, shape: tuple[int, ...], right: list[int]
    ) -> None:
        make_checkpoint(tmp_path, family)
        change_tensors(tmp_path, {name: torch.ones(shape)})
        with pytest.raises(CheckpointError, match=rf"'{name}' is .*config\.json says") as caught:
            Checkpoint.open(tmp_path)
        assert str(right) in caught.value.problem
        change_tensors(tmp_path, {name: None})
        with pytest.raises(CheckpointError, match=f"'{name}' is missing"):
            Checkpoint.open(tmp_path)

    @pytest.mark.parametrize(
        ("family", "name"),
        [
            ("opt", "model.decoder.project_in.weight"),
            ("opt", "decoder.project_out.weight"),
            ("opt", "model.decoder.layers.0.fc3.weight"),
            ("gemma3_text", "model.layers.0.self_attn.q_proj.bias"),
            ("gemma3_text", "model.layers.0.altup.weight"),
        ],
    )
    def test_a_tensor_that_is_part_of_nothing(self, tmp_path: Path, family: str, name: str) -> None:
        change_tensors(make_checkpoint(tmp_path, family), {name: torch.ones(HIDDEN)})
        with pytest.raises(CheckpointError, match=f"'{name}' is part of no layer"):
            Checkpoint.open(tmp_path)

    @pytest.mark.parametrize(
        ("written", "read", "looked_for"),
        [
            ("llama", "opt", "model.decoder.layers.0.self_attn_layer_norm.weight"),
            ("opt", "llama", "model.layers.0.input_layernorm.weight"),
        ],
    )
    def test_tensors_of_another_family(
        self, tmp_path: Path, written: str, read: str, looked_for: str
    ) -> None:
        make_checkpoint(tmp_path / "read", read)
        weights = make_checkpoint(tmp_path / "written", written) / "model.safetensors"
        weights.replace(tmp_path / "read" / "model.safetensors")
        with pytest.raises(CheckpointError, match=f"expected tensor names such as '{looked_for}'"):
            Checkpoint.open(tmp_path / "read")
