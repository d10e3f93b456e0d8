"""Heads on a model that they were not trained for: one line with what was found, what was expected, and the
command that trains others; and that command, run."""

from __future__ import annotations

import random
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from helios_cli.main import main
from helios_server.errors import BundleError
from helios_server.exits.bundle import BundleRef, HeadBundle, open_bundle
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ResolvedModel
from helios_server.profile.candidates import Candidate
from helios_server.profile.inspect import inspect
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint
from tests.exits.test_bundle import write

URI, HEADS = "pvc://models/tuned further", "pvc://models/heads"


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A claim with a model, heads for it, and a copy of the model that was trained further."""
    claim = tmp_path / "models"
    model = make_checkpoint(claim / "model", layers=4, dtype=torch.float32)
    write(claim / "heads", Checkpoint.open(model))
    copy = Path(shutil.copytree(model, claim / "tuned further"))
    weights = load_file(copy / "model.safetensors")
    save_file({name: 1.001 * tensor for name, tensor in weights.items()}, copy / "model.safetensors")
    return tmp_path


def test_a_changed_copy_gets_one_line_and_its_command_trains_heads_for_it(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = inspect([Candidate("chat", URI, exits=HEADS)], volumes).problems.values()
    models = (Checkpoint.open(volumes / "models" / name) for name in ("model", "tuned further"))
    expected, found = (model.fingerprint[:12] for model in models)
    command = f"helios tune '{URI}' TEXT --layers 1,2 --out DIR"
    assert told == (
        f"{HEADS}: was trained for a backbone with fingerprint {expected} (expected), '{URI}' has {found} "
        f"(found) and the same shape; Use a bundle of this backbone, or train one: {command}"
    )
    text, out = volumes / "text.txt", volumes / "models" / "own"
    text.write_text(" ".join(random.Random(0).choices(("the", "then", "other", "on", "in", "thin"), k=4000)))
    words = {"TEXT": str(text), "DIR": str(out)}
    verb = [words.get(word, word) for word in shlex.split(command)[1:]]
    assert main([*verb, "--volumes", str(volumes), "--kind", "affine"]) == 0
    found_now = inspect([Candidate("chat", URI, exits="pvc://models/own")], volumes)
    assert not found_now.problems
    assert found_now.resolved["chat"].exit_layers == (1, 2)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (ResolvedModel(Path("/x"), "hf://org/tiny", "c" * 40), f"hf://org/tiny --revision {'c' * 40}"),
        (ResolvedModel(Path("/x"), "pvc://models/tiny", "0123456789ab"), "pvc://models/tiny"),
        (ResolvedModel(Path("/x"), "file:///a b", "0123456789ab"), "'file:///a b'"),
    ],
)
def test_the_command_names_the_model_as_it_was_asked_for(
    volumes: Path, model: ResolvedModel, named: str
) -> None:
    """Of the hub its commit, too: a branch may have moved on."""
    checkpoint = Checkpoint.open(volumes / "models" / "tuned further", model.named)
    with pytest.raises(BundleError) as caught:
        open_bundle(BundleRef(HEADS), checkpoint, volumes=volumes)
    assert caught.value.fix.endswith(f"helios tune {named} TEXT --layers 1,2 --out DIR")


def test_a_model_that_nobody_named_is_its_folder(volumes: Path) -> None:
    checkpoint = Checkpoint.open(volumes / "models" / "tuned further")
    with pytest.raises(BundleError, match=re.escape(f"'file://{checkpoint.path}' has")):
        HeadBundle.load(volumes / "models" / "heads", checkpoint)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"layers": 3}, "numLayers 4 (expected), {model} has 3 (found);"),
        ({"layers": 4, "vocab_size": 448}, "vocabSize 320 (expected), {model} has 448 (found);"),
    ],
)
def test_another_shape_is_named_by_what_differs(volumes: Path, shape: dict[str, int], said: str) -> None:
    """Not by a fingerprint, which tells nobody anything then; nor are its layers advised."""
    make_checkpoint(volumes / "models" / "other", dtype=torch.float32, **shape)
    uri = "pvc://models/other"
    (told,) = inspect([Candidate("chat", uri, exits=HEADS)], volumes).problems.values()
    assert said.format(model=uri) in told
    assert "fingerprint" not in told
    assert told.endswith(f"helios tune {uri} TEXT --out DIR")
