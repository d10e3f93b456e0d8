"""`helios rm`: a deployment that does not run is forgotten, and nothing that is anybody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helios_cli import main as command
from helios_operator.local.lock import StateLock
from helios_operator.local.runtime import _admit
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store

from tests.local.world import deployment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deployment with its log."""
    state = tmp_path / "state"
    Store.open(state / "objects", _admit).apply(deployment())
    (state / "deployments" / "chat").mkdir(parents=True)
    (state / "deployments" / "chat" / "events.jsonl").write_text("")
    return state


def rm(folder: Path, name: str = "chat") -> int:
    return command.main(["rm", name, "--state", str(folder)])


def add_row(folder: Path, name: str, *owners: str) -> None:
    row = {
        "kind": PROFILE,
        "metadata": {
            "name": name,
            "ownerReferences": [{"kind": DEPLOYMENT, "name": owner} for owner in owners],
        },
        "spec": {"kind": "Timing"},
    }
    Store.open(folder / "objects", lambda new, _: new).apply(row)


def test_nothing_of_it_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_row(folder, "t-1", "chat")
    assert rm(folder) == 0
    assert "chat is deleted, with 1 profiles" in capsys.readouterr().out
    assert not folder.exists()
    assert rm(folder) == 2


def test_what_runs_is_kept_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = StateLock.acquire(folder, "helios up chat.yaml")
    assert rm(folder) == 2
    assert "runs in process" in (said := capsys.readouterr().err)
    assert "helios up chat.yaml" in said
    assert Store.read(folder / "objects").names(DEPLOYMENT) == ["chat"]
    held.release()
    assert rm(folder) == 0


def test_files_of_others_stay(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert rm(folder) == 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_neighbour_keeps_what_it_uses(folder: Path) -> None:
    Store.open(folder / "objects", _admit).apply(deployment() | {"metadata": {"name": "other"}})
    for name, owners in (("t-1", ["chat"]), ("t-2", ["chat", "other"]), ("t-3", ["other"])):
        add_row(folder, name, *owners)
    assert rm(folder) == 0
    left = Store.read(folder / "objects")
    assert (left.names(DEPLOYMENT), left.names(PROFILE)) == (["other"], ["t-2", "t-3"])
    owners = [o["name"] for o in left.get(PROFILE, "t-2")["metadata"]["ownerReferences"]]
    assert owners == ["other"]
    assert not (folder / "deployments" / "chat").exists()


def test_an_unknown_name_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rm(folder, "nobody") == 2
    assert "there is no 'nobody'" in capsys.readouterr().err
    assert json.loads((folder / "objects" / "heliosdeployments" / "chat.json").read_text())
