"""Whatever stands in a model's files: it loads, or it is refused in one line that names a field."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helios_server.errors import HeliosError
from helios_server.exits.bundle import HeadBundle
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.checkpoints import FAMILIES, make_checkpoint
from tests.models.changes import SINGLE, header_of, write_header
from tests.profile.planted import noise_bundle
from tests.sizes import examples

INDEX = "model.safetensors.index.json"
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 63, 64, 10**9, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e300,
    float("nan"), float("inf"), "", "0", "silu", "llama", "linear", "../x", "/etc/passwd", "a\0b", "a\nb",
    "\udcff", "x" * 300, "F16", "F8_E4M3", [], [0], [1, 2], [-1, 4], ["a"], [None], [[1]], {}, {"a": 1},
    {"rope_type": "linear"}, {"type": "yarn"}, {"rope_type": "llama3", "factor": 2.0},
    {"full_attention": {"rope_theta": 1e4}}, {"quant_method": "gptq"},
)  # fmt: skip
values = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EXTRA = (
    "rope_scaling", "rope_parameters", "partial_rotary_factor", "use_sliding_window", "quantization_config",
    "attention_bias", "mlp_bias", "original_max_position_embeddings", "layer_types", "query_pre_attn_scalar",
    "sliding_window_pattern", "rope_local_base_freq", "enable_bias", "word_embed_proj_dim",
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a family, single file and sharded, each with a bundle."""
    root = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        for shards in (1, 2):
            path = make_checkpoint(root / f"{family}-{shards}", family, layers=2, shards=shards, seed=1)
            (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 258], "top_k": 3}))
            noise_bundle(path / "heads", path, (1,))
    return root


@contextmanager
def a_copy(models: Path, family: str, shards: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield shutil.copytree(models / f"{family}-{shards}", Path(folder) / "model")


def loads_or_is_refused(path: Path) -> None:
    """An error that nobody foresaw would come out as `cannot be loaded`."""
    error = refusal(path)
    if error is not None:
        assert error.field
        assert error.fix
        assert "\n" not in str(error)
        assert "cannot be loaded" not in error.problem


def refusal(path: Path) -> HeliosError | None:
    try:
        checkpoint = Checkpoint.open(path)
        Backbone.load(checkpoint, checkpoint.config.num_layers, dtype="float32", max_context=16)
        _ = checkpoint.fingerprint
        HeadBundle.load(path / "heads", checkpoint).breach_thresholds()
    except HeliosError as error:
        return error
    return None


def changed(draw: st.DrawFn, content: Any) -> Any:
    """A copy with one value, somewhere in it, replaced, dropped or added."""
    content = copy.deepcopy(content)
    at = content
    while isinstance(at, dict | list) and at:
        key = draw(st.sampled_from(sorted(at, key=str) if isinstance(at, dict) else range(len(at))))
        if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "replace":
            at[key] = draw(values)
        elif how == "drop":
            del at[key]
        elif isinstance(at, dict):
            at[draw(st.text(max_size=8))] = draw(values)
        else:
            at.append(draw(values))
        return content
    return draw(values)


places = {"family": st.sampled_from(FAMILIES), "shards": st.sampled_from([1, 2])}


class TestMutations:
    @given(data=st.data(), **places)
    @settings(max_examples=examples(150, heavy=True))
    def test_of_config(self, models: Path, data: st.DataObject, family: str, shards: int) -> None:
        with a_copy(models, family, shards) as path:
            file = path / "config.json"
            content = changed(data.draw, json.loads(file.read_text()))
            for field in data.draw(st.lists(st.sampled_from(EXTRA), max_size=2)):
                if isinstance(content, dict):
                    content[field] = data.draw(values)
            file.write_text(json.dumps(content))
            loads_or_is_refused(path)

    @given(
        data=st.data(), **places, name=st.sampled_from(["generation_config.json", "heads/exits.json", INDEX])
    )
    @settings(max_examples=examples(150, heavy=True))
    def test_of_the_other_files(
        self, models: Path, data: st.DataObject, family: str, shards: int, name: str
    ) -> None:
        with a_copy(models, family, 2 if name == INDEX else shards) as path:
            content = changed(data.draw, json.loads((path / name).read_text()))
            (path / name).write_text(json.dumps(content))
            loads_or_is_refused(path)

    @given(data=st.data(), family=places["family"], heads=st.booleans())
    @settings(max_examples=examples(150, heavy=True))
    def test_of_a_header(self, models: Path, data: st.DataObject, family: str, heads: bool) -> None:
        with a_copy(models, family, 1) as path:
            file = path / ("heads/exits.safetensors" if heads else SINGLE)
            header, tensors = header_of(file)
            length = data.draw(st.none() | st.integers(0, 2**64 - 1))
            write_header(file, changed(data.draw, header), tensors, length)
            loads_or_is_refused(path)

    @given(data=st.data(), family=places["family"], shards=places["shards"])
    @settings(max_examples=examples(150, heavy=True))
    def test_of_bytes(self, models: Path, data: st.DataObject, family: str, shards: int) -> None:
        with a_copy(models, family, shards) as path:
            file = data.draw(
                st.sampled_from(sorted(f for f in path.rglob("*.*") if f.suffix != ".jinja" and f.is_file()))
            )
            content = bytearray(file.read_bytes())
            start = data.draw(st.integers(0, min(len(content), 2000)))
            stop = data.draw(st.integers(start, min(len(content), start + 20)))
            content[start:stop] = data.draw(st.binary(max_size=12))
            file.write_bytes(content)
            loads_or_is_refused(path)

    @given(
        stored=st.lists(
            st.sampled_from(
                ["layers.0.a", "model.", "model.model.norm.weight", "lm_head.weight", "", "norm.weight"]
            )
        )
    )
    @example(stored=["model.model.layers.0.mlp.up_proj.weight"])
    def test_of_names(self, models: Path, stored: list[str]) -> None:
        with a_copy(models, "llama", 1) as path:
            header, tensors = header_of(path / SINGLE)
            for old, new in zip(sorted(set(header) - {"__metadata__"}), stored, strict=False):
                header[new] = header.pop(old)
            write_header(path / SINGLE, header, tensors)
            loads_or_is_refused(path)
