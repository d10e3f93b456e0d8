"""`helios up` as a person meets it: what it prints, how others speak to it, and that it leaves nothing
behind."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from helios_operator.local.lock import StateLock
from helios_operator.local.store import DEPLOYMENT, Store

from tests.cli.command import HELIOS, UP, helios, here, up, write
from tests.local.world import deployment, other_than
from tests.sizes import LONG


def test_up_serves_is_asked_and_ends_without_a_trace(state: Path, volumes: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.yaml", deployment())
    with up(file, state, volumes) as running:
        running.until("Available=True")
        http = re.search(r"^chat: (http://127\.0\.0\.1:\d+)$", running.text, re.MULTILINE)
        assert http is not None
        told = ("--state", state)

        asked = {"messages": [{"role": "user", "content": "Call me Ishmael."}], "max_tokens": 8}
        headers = {"Content-Type": "application/json"}
        chat = Request(f"{http[1]}/v1/chat/completions", json.dumps(asked).encode(), headers)
        with urlopen(chat) as response:
            assert json.load(response)["object"] == "chat.completion"

        answer = helios("generate", "Call me Ishmael.", "--max-tokens", 8, *told)
        assert (answer.code, answer.err.count("8 tokens in")) == (0, 1)
        whole = json.loads(helios("generate", "Call me", "--max-tokens", 4, "--json", *told).out)
        assert whole["completionTokens"] == 4
        assert whole["spans"][0]["candidate"] in ("deep", "flat")

        status = json.loads(helios("status", "chat", "--output", "json", *told).out)
        assert (status["running"], status["ready"], status["replicas"]) == (True, "True", "1/1")
        assert "MinimumReplicasServing" in helios("status", "chat", *told).out

        second = helios("up", file, "--state", state, "--port", 0)
        assert second.code == 2
        assert f"is in use by process {running.process.pid} (helios up " in second.err

        assert helios("pause", "chat", *told).code == 0
        assert helios("pause", "chat", "--off", *told).code == 0
        assert helios("reassess", "chat", *told).code == 0
        unknown = helios("switch", "chat", "nobody", *told)
        assert (unknown.code, unknown.out) == (2, "")
        assert unknown.err.startswith("error: candidate: chat has no 'nobody'; name one of deep, flat")
        after = other_than(status["candidate"])
        assert helios("switch", "chat", after, *told).code == 0
        running.until("RolloutCompleted")
        assert after in helios("why", "chat", *told).out
        assert helios("rollback", "chat", *told).code == 0
        running.until(f"Switch to {status['candidate']}")

        children = running.children()
        assert children
        assert running.interrupt() == 0
        assert not psutil.wait_procs(children, timeout=60)[1]
    stopped = helios("status", "chat", "--state", state)
    assert "Not running" in stopped.out
    asked = helios("reassess", "chat", "--state", state)
    assert (asked.code, "helios up FILE" in asked.err) == (2, True)


def test_a_second_interrupt_cuts_the_streams(state: Path, volumes: Path, tmp_path: Path) -> None:
    with up(write(tmp_path / "chat.yaml", deployment()), state, volumes) as running:
        running.until("Available=True")
        children = running.children()
        for child in children:
            child.suspend()  # as deaf as a process can be
        running.process.send_signal(signal.SIGINT)
        running.until("stopping")
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(240) == 0
        assert not psutil.wait_procs(children, timeout=60)[1]


@pytest.mark.long
def test_a_kill_at_any_moment_leaves_a_whole_folder_and_no_process(
    state: Path, volumes: Path, tmp_path: Path
) -> None:
    """At two moments; at four in `make test-long`."""
    file = write(tmp_path / "chat.yaml", deployment())
    moments = random.Random(7)
    for _ in range(4 if LONG else 2):
        with up(file, state, volumes) as running:
            running.until("chat: 127.0.0.1")
            time.sleep(moments.uniform(0, 3))
            children = running.children()
            running.process.kill()
            running.process.wait()
            assert not psutil.wait_procs(children, timeout=60)[1]
        assert Store.read(state / "objects").names(DEPLOYMENT) == ["chat"]
        assert helios("status", "chat", "--state", state).code == 0
    with up(file, state, volumes) as running:
        running.until("Available=True")
        assert "Started  Timing" not in running.text  # what was measured is kept
        assert running.interrupt() == 0


def test_plan_says_what_up_would_choose(state: Path, volumes: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.yaml", deployment())
    told = ("--profiles", state, "--volumes", volumes, "--device", "cpu", "--dtype", "float32")
    before = sorted((path, path.stat().st_mtime_ns) for path in state.rglob("*.json"))
    planned = helios("plan", file, *told, "--output", "json")
    (view,) = json.loads(planned.out)
    active = Store.read(state / "objects").get(DEPLOYMENT, "chat")["status"]["active"]
    assert planned.code == 0
    assert (view["chosen"]["candidate"], view["chosen"]["layers"]) == (
        active["candidate"],
        active["layerBudget"],
    )
    assert {(option["candidate"], option["layers"]) for option in view["options"]} == {
        ("deep", 2),
        ("deep", 4),
        ("flat", 2),
        ("flat", 3),
    }
    strict = write(tmp_path / "strict.yaml", deployment(slo={"minQualityPercent": 100}))
    table = here("plan", strict, *told).out
    assert "QualityTooLow" in table
    assert "< 100" in table
    assert before == sorted((path, path.stat().st_mtime_ns) for path in state.rglob("*.json"))
    nothing = here("plan", file, "--profiles", tmp_path, "--volumes", volumes)
    assert nothing.code == 1
    assert "To be measured first: Timing of" in nothing.out


def test_profiles_are_listed_with_who_uses_them(state: Path) -> None:
    rows = json.loads(helios("profiles", "chat", "--state", state, "--output", "json").out)
    assert sorted(row["kind"] for row in rows) == ["Quality", "Quality", "Timing", "Timing"]
    assert all(row["used_by"] == ["chat"] and row["phase"] == "Complete" for row in rows)
    table = helios("profiles", "--state", state).out
    assert "us per layer" in table
    assert "layers full (3 prompts)" in table


def test_a_reader_that_goes_away_stops_nothing(state: Path, volumes: Path, tmp_path: Path) -> None:
    """Nor is it what keeps `helios up` from being ended: what it says then has no reader, either."""
    file = write(tmp_path / "chat.yaml", deployment())
    command = [*HELIOS, "up", str(file), "--state", str(state), "--volumes", str(volumes), *UP]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        process.stdout.close()  # before a line was read
        end = time.monotonic() + 240
        asked = ("status", "chat", "--state", state, "--output", "json")
        while json.loads(here(*asked).out)["ready"] != "True":
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        answer = helios("generate", "Call me Ishmael.", "--max-tokens", 8, "--state", state)
        assert answer.code == 0, answer.err
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 0
    finally:
        process.kill()  # `with` would wait for it, whatever was wrong
        process.wait()


def test_what_an_earlier_run_left_is_not_what_runs(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "objects", lambda new, _: new)
    store.apply(deployment())
    ready = {"type": "Ready", "status": "True", "reason": "AllGood", "message": ""}
    store.write_status(DEPLOYMENT, "chat", {"endpoint": "127.0.0.1:1", "conditions": [ready]})
    held = StateLock.acquire(tmp_path, "helios up chat.yaml")
    asked = ("status", "chat", "--state", tmp_path, "--output", "json")
    assert json.loads(here(*asked).out)["ready"] == "False"
    assert "no deployment runs here" in here("generate", "Call me", "--state", tmp_path).err
    held.begin()
    assert json.loads(here(*asked).out)["ready"] == "True"
    held.release()
    assert json.loads(here(*asked).out)["ready"] == "False"
