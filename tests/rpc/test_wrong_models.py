"""A model that cannot be served ends `helios serve` in one line and exit 2, before anything of it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints import HIDDEN, make_checkpoint
from tests.models.changes import SINGLE, change_config, change_json, change_tensors, header_of, write_header
from tests.profile.planted import noise_bundle
from tests.rpc.test_serve import MEMORY, told

EMBEDDING = "model.embed_tokens.weight"


def lie(path: Path) -> None:
    header, data = header_of(path / SINGLE)
    header[EMBEDDING]["data_offsets"] = [-8, 8]
    write_header(path / SINGLE, header, data)


def adapter(path: Path) -> None:
    (path / SINGLE).rename(path / "adapter_model.safetensors")
    (path / "config.json").rename(path / "adapter_config.json")


def pickled(path: Path) -> None:
    (path / SINGLE).rename(path / "pytorch_model.bin")


def no_index(path: Path) -> None:
    (path / SINGLE).unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": None}))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a short embedding": (
        lambda path: change_tensors(path, {EMBEDDING: torch.ones(300, HIDDEN)}),
        "[300, 64]",
    ),
    "a broadcast norm": (lambda path: change_tensors(path, {"model.norm.weight": torch.ones(1)}), "is [1]"),
    "another head_dim": (lambda path: change_config(path, head_dim=32), "config.json says"),
    "a short matrix above the budget": (
        lambda path: change_tensors(path, {"model.layers.1.mlp.up_proj.weight": torch.ones(127, HIDDEN)}),
        "model.layers.1.mlp.up_proj.weight",
    ),
    "an end token of a string": (lambda path: change_config(path, eos_token_id="2"), "eos_token_id"),
    "yarn": (lambda path: change_config(path, rope_parameters={"rope_type": "yarn", "factor": 4.0}), "yarn"),
    "a theta of a string": (lambda path: change_config(path, rope_theta="1e4"), "rope_theta"),
    "a list": (lambda path: (path / "config.json").write_text("[]"), "config.json"),
    "no layers": (lambda path: change_config(path, num_hidden_layers=0), "num_hidden_layers"),
    "a malformed generation_config": (
        lambda path: (path / "generation_config.json").write_text("{"),
        "generation_config.json",
    ),
    "a malformed tokenizer": (lambda path: (path / "tokenizer.json").write_text('{"model": 3}'), "tokenizer"),
    "a lying header": (lie, "data_offsets"),
    "an adapter": (adapter, "merge_and_unload"),
    "a pickle": (pickled, "save_pretrained"),
    "no weight_map": (no_index, "weight_map is null"),
}


@pytest.mark.parametrize("revision", [(), ("--revision", "r1")])
@pytest.mark.parametrize("what", WRONG)
def test_a_model_that_cannot_be_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, revision: tuple[str, ...]
) -> None:
    path = make_checkpoint(tmp_path / "model", layers=2)
    change, named = WRONG[what]
    change(path)
    code, line = told(capsys, "--model", f"file://{path}", "--layer-budget", "1", *revision, *MEMORY)
    assert code == 2
    assert named in line
    assert "cannot be loaded (" not in line


@pytest.mark.parametrize("field", ["format", "backbone", "exits", "digest", "calibration"])
@pytest.mark.parametrize("value", [[None], "text", 3])
def test_a_bundle_whose_json_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object
) -> None:
    path = make_checkpoint(tmp_path / "model", layers=2)
    heads = noise_bundle(tmp_path / "heads", path, (1,))
    change_json(heads / "exits.json", **{field: value})
    code, line = told(capsys, "--model", f"file://{path}", "--exits", f"file://{heads}", *MEMORY)
    assert code == 2
    assert line.startswith(f"error: {heads}")
    assert field in line
