"""The bundle format: what is written is read, and what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.errors import BundleError, ModelNotFoundError
from helios_server.exits.bundle import (
    BundleRef,
    HeadBundle,
    describe_backbone,
    find_bundle,
    open_bundle,
    write_bundle,
    write_meta,
)
from helios_server.exits.head import head_shapes
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import HIDDEN, make_checkpoint

LAYERS = {1: "affine", 2: "mlp"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(tmp_path / "model", layers=4))


@pytest.fixture
def bundle(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    return write(tmp_path / "heads", checkpoint)


def write(path: Path, checkpoint: Checkpoint, layers: dict[int, str] = LAYERS, seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    heads = {layer: (kind, random_head(kind, generator)) for layer, kind in layers.items()}
    write_bundle(path, heads, {"backbone": describe_backbone(checkpoint), "training": {}, "evaluation": []})
    return path


def random_head(kind: str, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(shape, generator=generator) / HIDDEN**0.5
        for name, shape in head_shapes(kind, HIDDEN).items()
    }


def edit(path: Path, **fields: Any) -> None:
    file = path / "exits.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_what_is_written_is_read(tmp_path: Path, checkpoint: Checkpoint, bundle: Path) -> None:
    loaded = HeadBundle.load(bundle, checkpoint)
    assert loaded.layers == (1, 2)
    assert loaded.kind == "mlp"
    assert loaded.digest.startswith("sha256:")
    again = HeadBundle.load(write(tmp_path / "again", checkpoint), checkpoint)
    other = HeadBundle.load(write(tmp_path / "other", checkpoint, seed=1), checkpoint)
    assert again.digest == loaded.digest != other.digest
    for name, tensor in random_head("affine", torch.Generator().manual_seed(0)).items():
        assert torch.equal(loaded.tensors(1)[name], tensor.half())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_heads_keep_shape_and_dtype_and_treat_rows_alone(
    checkpoint: Checkpoint, bundle: Path, dtype: str
) -> None:
    backbone = Backbone.load(checkpoint, 2, dtype=dtype)
    hidden = backbone.embed(torch.arange(40), torch.arange(40))
    for layer, kind in LAYERS.items():
        head = HeadBundle.load(bundle, checkpoint).head(layer, backbone)
        out = head.apply(hidden)
        assert (head.kind, out.shape, out.dtype) == (kind, hidden.shape, hidden.dtype)
        assert head.nbytes > 0
        if dtype == "float16":
            assert torch.equal(head.apply(hidden[3:4]), out[3:4])


def test_full_depth_and_uncovered_layers_use_the_models_own_norm(
    checkpoint: Checkpoint, bundle: Path
) -> None:
    backbone = Backbone.load(checkpoint, 4, dtype="float32")
    hidden = backbone.embed(torch.arange(5), torch.arange(5))
    for layer in (3, 4):
        head = HeadBundle.load(bundle, checkpoint).head(layer, backbone)
        assert (head.kind, head.nbytes) == ("bare", 0)
        assert torch.equal(head.apply(hidden), backbone.final_norm(hidden))


class TestRefusals:
    def refused(self, path: Path, checkpoint: Checkpoint) -> str:
        with pytest.raises(BundleError) as caught:
            HeadBundle.load(path, checkpoint)
        assert str(path) in caught.value.field
        assert caught.value.fix
        return caught.value.problem

    def test_another_backbone_of_the_same_shape(self, tmp_path: Path, bundle: Path) -> None:
        other = Checkpoint.open(make_checkpoint(tmp_path / "other", layers=4, seed=9))
        problem = self.refused(bundle, other)
        assert "fingerprint" in problem
        assert other.fingerprint[:12] in problem

    def test_tensors_changed_after_the_digest(self, checkpoint: Checkpoint, bundle: Path) -> None:
        file = bundle / "exits.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert "digest is sha256:" in self.refused(bundle, checkpoint)

    def test_text_changed_after_the_digest(self, checkpoint: Checkpoint, bundle: Path) -> None:
        edit(bundle, training={"command": "something else"})
        assert "digest" in self.refused(bundle, checkpoint)

    @pytest.mark.parametrize("layer", [0, 4, 9])
    def test_an_exit_outside_the_depth(self, tmp_path: Path, checkpoint: Checkpoint, layer: int) -> None:
        path = write(tmp_path / "deep", checkpoint, {layer: "affine"})
        assert f"layer {layer}, outside 1..3" in self.refused(path, checkpoint)

    def test_an_unknown_kind(self, checkpoint: Checkpoint, bundle: Path) -> None:
        edit(bundle, exits=[{"layer": 1, "kind": "transformer"}])
        assert "kind 'transformer'" in self.refused(bundle, checkpoint)

    def test_a_missing_tensor(self, checkpoint: Checkpoint, bundle: Path) -> None:
        edit(bundle, exits=[{"layer": 1, "kind": "mlp"}])
        assert "exits.1.gate.weight is None" in self.refused(bundle, checkpoint)

    @pytest.mark.parametrize("file", ["exits.json", "exits.safetensors"])
    def test_a_missing_file(self, checkpoint: Checkpoint, bundle: Path, file: str) -> None:
        (bundle / file).unlink()
        assert self.refused(bundle, checkpoint) == "file is missing"

    @pytest.mark.parametrize("file", ["exits.json", "exits.safetensors"])
    def test_a_truncated_file(self, checkpoint: Checkpoint, bundle: Path, file: str) -> None:
        (bundle / file).write_bytes((bundle / file).read_bytes()[:-100])
        self.refused(bundle, checkpoint)

    def test_another_format(self, checkpoint: Checkpoint, bundle: Path) -> None:
        edit(bundle, format="helios-exits/9")
        assert "helios-exits/9" in self.refused(bundle, checkpoint)

    @pytest.mark.parametrize(
        ("field", "value", "named"),
        [
            ("format", None, "format is null"),
            ("format", ["helios-exits/1"], "format is"),
            ("backbone", None, "backbone is null, expected an object"),
            ("backbone", "abc", 'backbone is "abc", expected an object'),
            ("backbone", {}, "fingerprint"),
            ("digest", None, "digest is null, expected a text"),
            ("digest", 7, "digest is 7, expected a text"),
            ("exits", None, "exits is null, expected a list"),
            ("exits", {"1": "mlp"}, "expected a list"),
            ("exits", [], "expected one or more"),
            ("exits", [None], "exits[0] is null, expected an object with a layer and a kind"),
            ("exits", ["mlp"], 'exits[0] is "mlp", expected'),
            ("exits", [{"layer": 1, "kind": "affine"}, {"layer": "2", "kind": "mlp"}], "exits[1] is"),
            ("exits", [{"layer": True, "kind": "affine"}], "exits[0] is"),
            ("exits", [{"layer": 1.0, "kind": "affine"}], "exits[0] is"),
            ("exits", [{"layer": [1], "kind": "affine"}], "exits[0] is"),
            ("exits", [{"layer": 1, "kind": None}], "exits[0] is"),
            ("exits", [{"layer": 1, "kind": ["affine"]}], "exits[0] is"),
            ("exits", [{"layer": 1}], "exits[0] is"),
            ("exits", [{"layer": 1, "kind": "affine"}] * 2, "each once"),
            ("exits", [{"layer": -1, "kind": "affine"}], "layer -1, outside"),
            ("calibration", 3, "calibration: expected lists"),
            ("calibration", {"1": []}, "calibration.1: expected lists"),
            ("calibration", {"1": {"lowest": [0.1], "tokens": [3], "agreed": []}}, "of one length"),
            ("calibration", {"1": {"lowest": ["a"], "tokens": [3], "agreed": [3]}}, "lowest: expected"),
            (
                "calibration",
                {"1": {"lowest": [float("nan")], "tokens": [3], "agreed": [3]}},
                "lowest: expected",
            ),
            ("calibration", {"2": {"lowest": [0.5, 0.1], "tokens": [3, 3], "agreed": [3, 3]}}, "ascending"),
            ("calibration", {"2": {"lowest": [0.1], "tokens": [0], "agreed": [0]}}, "tokens: expected"),
            ("calibration", {"2": {"lowest": [0.1], "tokens": [3], "agreed": [4]}}, "agreed: expected"),
        ],
    )
    def test_a_field_of_another_kind(
        self, checkpoint: Checkpoint, bundle: Path, field: str, value: Any, named: str
    ) -> None:
        edit(bundle, **{field: value})
        assert named in self.refused(bundle, checkpoint)

    @pytest.mark.parametrize("field", ["format", "backbone", "exits", "digest"])
    def test_a_missing_field(self, checkpoint: Checkpoint, bundle: Path, field: str) -> None:
        content = json.loads((bundle / "exits.json").read_text())
        (bundle / "exits.json").write_text(json.dumps({k: v for k, v in content.items() if k != field}))
        assert f"{field} is null" in self.refused(bundle, checkpoint)

    @pytest.mark.parametrize("text", ["", "null", "[]", '"x"', "[" * 100_000])
    def test_a_file_that_holds_no_object(self, checkpoint: Checkpoint, bundle: Path, text: str) -> None:
        (bundle / "exits.json").write_text(text)
        assert "cannot be read as JSON" in self.refused(bundle, checkpoint)

    def test_no_calibration_is_none(self, checkpoint: Checkpoint, bundle: Path) -> None:
        meta = json.loads((bundle / "exits.json").read_text())
        for calibration in (None, {}, {"1": None}):
            write_meta(bundle, meta | {"calibration": calibration})
            assert HeadBundle.load(bundle, checkpoint).breach_thresholds() == {}

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16])
    def test_tensors_of_another_dtype(self, checkpoint: Checkpoint, bundle: Path, dtype: torch.dtype) -> None:
        file = bundle / "exits.safetensors"
        save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
        write_meta(bundle, json.loads((bundle / "exits.json").read_text()))
        assert "expected [64] of F16" in self.refused(bundle, checkpoint)

    def test_a_reference_with_another_digest(self, checkpoint: Checkpoint, bundle: Path) -> None:
        uri = f"file://{bundle}"
        assert open_bundle(BundleRef(uri), checkpoint).layers == (1, 2)
        with pytest.raises(BundleError, match="expected sha256:0"):
            open_bundle(BundleRef(uri, "sha256:0"), checkpoint)

    def test_a_built_in_name_that_does_not_exist(self) -> None:
        with pytest.raises(BundleError, match=r"builtin://poetry: no such.*general"):
            find_bundle("builtin://poetry")

    def test_a_place_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError):
            find_bundle("pvc://heads/chat", volumes=tmp_path)


def test_claims_hold_bundles_too(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write(tmp_path / "volumes" / "heads" / "chat", checkpoint)
    uri = "pvc://heads/chat"
    assert open_bundle(BundleRef(uri), checkpoint, volumes=tmp_path / "volumes").layers == (1, 2)
