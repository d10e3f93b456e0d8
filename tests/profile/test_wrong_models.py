"""A model or a bundle that cannot be read ends a profile with exit 2 and a document that says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint
from tests.models.changes import change_config, change_json
from tests.profile.planted import noise_bundle
from tests.profile.test_command import run


@pytest.mark.parametrize("kind", ["timing", "inspect"])
def test_a_model_that_does_not_fit_its_config(tmp_path: Path, kind: str) -> None:
    path = make_checkpoint(tmp_path / "model", layers=2)
    change_config(path, head_dim=32)
    code, document = run(tmp_path, "--kind", kind, "--model", f"file://{path}")
    told = json.dumps(document)
    assert code == (0 if kind == "inspect" else 2)  # an inspection says so of the one candidate
    assert "self_attn.q_proj.weight' is [64, 64], config.json says [128, 64]" in told


@pytest.mark.parametrize("value", [None, "x", [3]])
def test_a_bundle_without_exits(tmp_path: Path, value: object) -> None:
    path = make_checkpoint(tmp_path / "model", layers=2)
    heads = noise_bundle(tmp_path / "heads", path, (1,))
    change_json(heads / "exits.json", exits=value)
    arguments = ("--kind", "timing", "--model", f"file://{path}", "--exits", f"file://{heads}")
    code, document = run(tmp_path, *arguments)
    assert (code, document["error"]["field"]) == (2, f"{heads}/exits.json")
    assert "exits" in document["error"]["problem"]
