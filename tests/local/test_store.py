"""The store keeps objects as an API server would, and its folder is whole at every moment."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helios_contract.problems import Problem
from helios_operator.api.problems import Invalid
from helios_operator.errors import ObjectNotFoundError, StateError, StateLockedError
from helios_operator.local import lock
from helios_operator.local.lock import StateLock
from helios_operator.local.store import DEPLOYMENT, PROFILE, Object, Store


def deployment(name: str = "chat", **spec: object) -> dict[str, object]:
    return {"apiVersion": "helios.dev/v1alpha1", "kind": DEPLOYMENT, "metadata": {"name": name}, "spec": spec}


def any_object(new: Object, old: Object | None) -> Object:
    return new


def open_store(folder: Path) -> Store:
    return Store.open(folder, any_object)


def test_a_new_object_gets_an_identity(tmp_path: Path) -> None:
    obj = open_store(tmp_path).apply(deployment(replicas=1))
    assert obj["metadata"]["generation"] == 1
    assert obj["metadata"]["uid"]
    assert obj["metadata"]["namespace"] == "default"


def test_generation_rises_with_the_spec_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = store.apply(deployment(replicas=1))
    store.write_status(DEPLOYMENT, "chat", {"phase": "Serving"})
    annotated = store.annotate(DEPLOYMENT, "chat", {"helios.dev/reassess": "now"})
    assert annotated["metadata"]["generation"] == 1
    assert int(annotated["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    changed = store.apply(deployment(replicas=2))
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["uid"] == first["metadata"]["uid"]
    assert changed["status"] == {"phase": "Serving"}
    assert changed["metadata"]["annotations"] == {"helios.dev/reassess": "now"}


def test_what_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    before = store.apply(deployment(replicas=1))
    store.write_status(DEPLOYMENT, "chat", {"phase": "Serving"})
    version = store.version(DEPLOYMENT, "chat")
    assert (
        store.write_status(DEPLOYMENT, "chat", {"phase": "Serving"})["metadata"]["resourceVersion"] == version
    )
    assert store.apply(deployment(replicas=1))["metadata"]["generation"] == before["metadata"]["generation"]
    assert store.version(DEPLOYMENT, "chat") == version


def test_a_second_run_reads_what_the_first_wrote(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(deployment("a"))
    kept = store.apply(deployment("b", replicas=3))
    store.delete(DEPLOYMENT, "a")
    again = open_store(tmp_path)
    assert again.objects(DEPLOYMENT) == [kept]
    changed = again.apply(deployment("b", replicas=4))
    assert int(changed["metadata"]["resourceVersion"]) > int(kept["metadata"]["resourceVersion"])


def test_rules_hold_for_every_write_and_every_file(tmp_path: Path) -> None:
    def at_most_three(new: Object, old: Object | None) -> Object:
        if new["spec"]["replicas"] > 3:
            raise Invalid([Problem("spec.replicas", "is above 3", "use at most 3")])
        return new | {"spec": new["spec"] | {"defaulted": True}}

    store = Store.open(tmp_path, at_most_three)
    first = store.apply(deployment(replicas=3))
    assert first["spec"]["defaulted"]
    assert store.apply(deployment(replicas=3))["metadata"]["generation"] == 1
    with pytest.raises(Invalid):
        store.apply(deployment(replicas=4))
    assert Store.open(tmp_path, at_most_three).get(DEPLOYMENT, "chat") == first
    open_store(tmp_path).apply(deployment(replicas=9))
    with pytest.raises(StateError, match=r"chat\.json: is not an object of this release \(spec\.replicas"):
        Store.open(tmp_path, at_most_three)


def test_nobody_shares_state_through_a_returned_object(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(deployment(replicas=1))["spec"]["replicas"] = 9
    store.get(DEPLOYMENT, "chat")["spec"]["replicas"] = 9
    assert store.get(DEPLOYMENT, "chat")["spec"] == {"replicas": 1}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"kind": "HeliosProfile"}', '{"kind":"HeliosProfile","metadata":{"name":"other"}}', ""],
)
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "heliosprofiles" / "t-1.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StateError, match=r"t-1\.json") as caught:
        open_store(tmp_path)
    assert "damaged" in caught.value.problem
    assert path.read_text() == content


def test_a_half_written_file_of_a_killed_writer_is_not_an_object(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(deployment())
    (tmp_path / "heliosdeployments" / ".partial-1234-chat.json").write_text("{")
    assert open_store(tmp_path).names(DEPLOYMENT) == ["chat"]
    assert [p.name for p in (tmp_path / "heliosdeployments").iterdir()] == ["chat.json"]


@pytest.mark.parametrize("name", ["", "../up", "Upper", "a/b", ".hidden"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StateError, match="not a name"):
        open_store(tmp_path).apply(deployment(name))


def test_a_missing_object_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(deployment("chat"))
    with pytest.raises(ObjectNotFoundError, match="chat"):
        store.get(DEPLOYMENT, "chta")


def test_a_reader_does_not_write(tmp_path: Path) -> None:
    open_store(tmp_path).apply(deployment())
    with pytest.raises(StateError, match="read only"):
        Store.read(tmp_path).annotate(DEPLOYMENT, "chat", {"a": "b"})


def test_a_folder_killed_at_any_moment_opens_again(tmp_path: Path) -> None:
    """A writer is killed again and again while it writes; what it left is an older or a newer whole
    object."""
    script = (
        "import sys; from pathlib import Path; from helios_operator.local.store import Store\n"
        "store = Store.open(Path(sys.argv[1]), lambda new, old: new); n = 0\n"
        "while True:\n"
        "    n += 1; store.apply({'kind': 'HeliosProfile', 'metadata': {'name': 't-1'}, 'spec': {'n': n}})\n"
        "    store.write_status('HeliosProfile', 't-1', {'text': 'x' * 20000}); print(n, flush=True)\n"
    )
    seen = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": ""},
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.03)
        writer.kill()
        writer.wait()
        generation = open_store(tmp_path).get(PROFILE, "t-1")["metadata"]["generation"]
        assert generation > seen
        seen = generation


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    held = StateLock.acquire(tmp_path, "helios up chat.yaml")
    with pytest.raises(StateLockedError, match=rf"process {os.getpid()} \(helios up chat.yaml"):
        StateLock.acquire(tmp_path, "helios up again.yaml")
    holder = lock.holder(tmp_path)
    assert holder is not None
    assert holder.pid == os.getpid()
    held.release()
    assert lock.holder(tmp_path) is None
    StateLock.acquire(tmp_path, "helios up again.yaml").release()


def test_a_holder_says_since_when_the_folder_tells_of_its_run(tmp_path: Path) -> None:
    for _ in range(2):  # the second holder comes after one that ended in order
        held = StateLock.acquire(tmp_path, "helios up chat.yaml")
        said = [lock.holder(tmp_path)]
        held.begin()
        said.append(lock.holder(tmp_path))
        held.release()
        assert [one and one.begun for one in said] == [False, True]
    assert (tmp_path / "lock").read_text() == ""


def test_who_looks_for_a_holder_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = (tmp_path / "lock").open("w")
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(lock.time, "sleep", lambda _: looking.close())
    StateLock.acquire(tmp_path, "helios up").release()


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from helios_operator.local.lock import StateLock\n"
        "lock = StateLock.acquire(Path(sys.argv[1]), 'up'); print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(StateLockedError, match=str(other.pid)):
        StateLock.acquire(tmp_path, "helios up")
    other.kill()
    other.wait()
    StateLock.acquire(tmp_path, "helios up").release()


def test_objects_are_readable_files(tmp_path: Path) -> None:
    open_store(tmp_path).apply(deployment(replicas=1))
    content = json.loads((tmp_path / "heliosdeployments" / "chat.json").read_text())
    assert content["spec"] == {"replicas": 1}
