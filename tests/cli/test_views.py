"""The command's views: made from objects, printed as a table, as JSON or as YAML; and a help that needs
nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli import main as command
from helios_cli import state as states
from helios_cli.verbs import why
from helios_cli.views import StatusView, WhyView, short_age
from helios_operator.errors import StateError
from helios_operator.local.events import Record
from helios_operator.local.store import DEPLOYMENT, Store

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
STATUS = {
    "phase": "Serving",
    "observedGeneration": 2,
    "readyReplicas": 1,
    "endpoint": "127.0.0.1:8033",
    "active": {"candidate": "smollm2", "revision": 1, "layerBudget": 24, "maxBatchSize": 12},
    "conditions": [
        {"type": "Available", "status": "True", "reason": "MinimumReplicasServing", "message": "1/1",
         "lastTransitionTime": "2026-11-23T11:00:00Z"},
        {"type": "Ready", "status": "True", "reason": "Serving", "message": "",
         "lastTransitionTime": "2026-11-23T11:00:00Z"},
    ],
    "candidates": [
        {"name": "smollm2", "state": "Profiled", "feasible": True, "layerBudget": 24, "maxBatchSize": 12,
         "tokensPerSecond": 182, "qualityPercent": 94},
        {"name": "wide", "state": "Infeasible", "feasible": False, "message": "needs 812 MiB, 600 MiB given"},
    ],
    "reassessment": {
        "lastTime": "2026-11-23T11:59:00.5Z", "decision": "Keep", "reason": "BelowMinImprovement",
        "message": "wide would gain 3 %, 10 % asked",
    },
    "history": [
        {"time": "2026-11-23T11:00:00Z", "kind": "Grow", "reason": "QualityMissed", "result": "Promoted",
         "from": {"candidate": "smollm2", "layerBudget": 24, "maxBatchSize": 12, "revision": 1},
         "to": {"candidate": "smollm2", "layerBudget": 27, "maxBatchSize": 9, "revision": 1},
         "message": "quality 94 % (>= 92.1)"},
    ],
}  # fmt: skip
OBJECT = {
    "apiVersion": "helios.dev/v1alpha1",
    "kind": DEPLOYMENT,
    "metadata": {"name": "chat"},
    "spec": {"modelName": "chat", "candidates": []},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder at its default place."""
    monkeypatch.setenv("HELIOS_STATE", str(tmp_path))
    store = Store.open(tmp_path / "chat" / "objects", lambda new, _: new)
    store.apply(OBJECT)
    store.write_status(DEPLOYMENT, "chat", STATUS)
    events = tmp_path / "chat" / "deployments" / "chat"
    events.mkdir(parents=True)
    record = Record("2026-11-23T11:59:00.123Z", "chat", "decision", "Set limits of revision 1", "Normal",
                    "QualityMissed", "Grow to 27", {"tokensPerSecond": 182.0})  # fmt: skip
    (events / "events.jsonl").write_text(json.dumps(vars(record)) + "\n")
    return tmp_path / "chat"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command.main(arguments) == 0
    return capsys.readouterr().out


def test_help_needs_neither_torch_nor_grpc() -> None:
    script = (
        "import sys; from helios_cli.main import main; main(['--help'])\n"
        "assert not {'torch', 'grpc', 'transformers', 'yaml', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in command.VERBS)


@pytest.mark.parametrize("verb", sorted(command.VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: helios {verb}" in capsys.readouterr().out


def test_status_in_three_forms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = printed(capsys, "status", "chat")
    assert "chat   False   smollm2   24       12      94          0/1    Stopped   127.0.0.1:8033" in table
    assert "wide        Infeasible   -" in table
    as_json = json.loads(printed(capsys, "status", "chat", "-o", "json"))
    assert yaml.safe_load(printed(capsys, "status", "chat", "-o", "yaml")) == as_json
    assert as_json["conditions"] == STATUS["conditions"]
    assert as_json["running"] is False
    (line,) = json.loads(printed(capsys, "status", "-o", "json"))
    assert line == as_json | {"age_seconds": line["age_seconds"]}


def test_status_of_a_running_deployment() -> None:
    view = StatusView.of(OBJECT | {"status": STATUS}, True, NOW)
    assert (view.ready, view.phase, view.replicas, view.layers, view.quality_percent) == (
        "True",
        "Serving",
        "1/1",
        24,
        94,
    )
    fresh = StatusView.of(OBJECT, True, NOW)
    assert (fresh.ready, fresh.phase, fresh.candidate) == ("Unknown", "Pending", None)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ({"state": "Profiled", "feasible": True}, "yes"),
        ({"state": "Infeasible", "feasible": False}, "no"),
        ({"state": "Infeasible", "feasible": False, "timing": "t-1"}, "no"),
        ({"state": "Rejected", "feasible": False, "timing": "t-1"}, "no"),
        ({"state": "Rejected", "feasible": False}, "unmeasured"),
        ({"state": "Failed", "feasible": False}, "unmeasured"),
        ({"state": "Pending", "feasible": False}, "unmeasured"),
        ({"state": "Profiling", "feasible": False, "timing": "t-1"}, "unmeasured"),
    ],
)
def test_why_says_no_of_what_was_measured_alone(candidate: dict[str, Any], said: str) -> None:
    assert why._candidate({"name": "a"} | candidate, False)[2] == said


def test_why_tells_the_reasons_with_their_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "why", "chat")
    for words in (
        "chat serves smollm2 at 24 layers, 12 rows.",
        "Last decision (2026-11-23T11:59:00Z): Keep / BelowMinImprovement",
        "wide would gain 3 %, 10 % asked",
        "needs 812 MiB, 600 MiB given",
        "smollm2@24   smollm2@27   QualityMissed   Promoted   quality 94 % (>= 92.1)",
        "11:59:00  Set limits of revision 1: QualityMissed: Grow to 27  [tokensPerSecond=182]",
    ):
        assert words in told
    assert json.loads(printed(capsys, "why", "chat", "-o", "json"))["decisions"][0]["numbers"] == {
        "tokensPerSecond": 182.0
    }


def test_why_does_not_repeat_itself() -> None:
    def record(source: str, message: str) -> Record:
        return Record("2026-11-23T11:59:00Z", "chat", source, "x", "Normal", "R", message)

    said = [
        record("decision", "it grows"),
        record("event", "Progressing=True: it grows"),
        record("event", "done"),
    ]
    assert [r.message for r in WhyView.of(OBJECT, said, 10).decisions] == ["it grows", "done"]


def test_a_name_in_two_folders_must_be_told_apart(folder: Path) -> None:
    Store.open(folder.parent / "other" / "objects", lambda new, _: new).apply(OBJECT)
    with pytest.raises(StateError, match="--state DIR"):
        states.holding("chat", None)
    assert states.holding("chat", folder).folder == folder


def test_ages_are_short() -> None:
    assert [short_age(seconds) for seconds in (45, 150, 7300, 200_000)] == ["45s", "2m", "2h", "2d"]


@pytest.mark.parametrize("verb", ["status", "why"])
def test_the_precision_is_a_column_where_more_than_one_is_weighed(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert "PRECISION" not in printed(capsys, verb, "chat")
    int8 = {"weightDtype": "int8", "kvCacheDtype": "int8"}
    status = json.loads(json.dumps(STATUS))
    status["candidates"][0] |= int8 | {"profiles": ["t-1", "q-1"]}
    status["active"] |= int8
    status["history"][0]["to"] |= int8
    Store.open(folder / "objects", lambda new, _: new).write_status(DEPLOYMENT, "chat", status)
    told = printed(capsys, verb, "chat")
    assert "PRECISION" in told
    assert "int8/int8" in told
    if verb == "why":
        assert "chat serves smollm2 at 24 layers in int8/int8, 12 rows." in told
        assert "smollm2@24   smollm2@27 int8/int8" in told
