"""The command's views: made from objects, printed as a table, as JSON or as YAML; and a help that needs
nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli import main as command
from helios_cli import state as states
from helios_cli.output import columns
from helios_cli.views import StatusView, WhyView, short_age
from helios_operator.errors import StateError
from helios_operator.local.events import Record
from helios_operator.local.store import DEPLOYMENT, Store
from hypothesis import given
from hypothesis import strategies as st

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
    assert re.search(r"chat +False +smollm2 +24 +12 +94 +0/1 +Stopped +127\.0\.0\.1:8033", table)
    assert re.search(r"wide +Infeasible +-", table)
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


def test_why_tells_the_reasons_with_their_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "why", "chat")
    for words in (
        "chat does not run; it served smollm2 at 24 layers, 12 rows.",
        "No data since 2026-11-23T11:59:00Z",
        "Last decision (2026-11-23T11:59:00Z): Keep / BelowMinImprovement: wide would",
        "gain 3 %, 10 % asked",
        "needs 812 MiB, 600 MiB given",
        "Grow to smollm2@27: quality 94 % (>= 92.1)",
        "11:59:00  Set limits of revision 1: QualityMissed: Grow to 27",
        "[tokensPerSecond=182]",
    ):
        assert words in told
    assert re.search(r"smollm2@24 +smollm2@27 +QualityMissed +Promoted", told)
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
    assert "int8/int8" in told
    if verb == "why":
        assert "it served smollm2 at 24 layers in int8/int8, 12 rows." in told
        assert re.search(r"smollm2@24 +smollm2@27", told)
    else:
        assert "PRECISION" in told


@pytest.mark.parametrize("verb", ["status", "why", "profiles"])
def test_tables_fit_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    status = json.loads(json.dumps(STATUS))
    status["candidates"][1]["name"] = "a-candidate-with-a-name-of-forty-letters"
    status["candidates"][1]["message"] = "needs more than there is; " * 20
    status["active"]["candidate"] = status["candidates"][1]["name"]
    status["history"][0]["to"]["candidate"] = status["candidates"][1]["name"]
    Store.open(folder / "objects", lambda new, _: new).write_status(DEPLOYMENT, "chat", status)
    told = printed(capsys, verb, "chat")
    assert max(map(len, told.splitlines())) <= 80


@given(
    st.lists(st.lists(st.text("abc -/", max_size=60), min_size=3, max_size=3), max_size=5),
    st.integers(50, 100),
)
def test_columns_keep_every_word_within_the_width(rows: list[list[str]], width: int) -> None:
    told = columns(("ONE", "TWO", "THREE"), rows, width)
    assert all(len(line) <= width for line in told.splitlines())
    letters = Counter("".join(cell for row in rows for cell in row))
    found = Counter("".join(told.splitlines()))
    assert all(found[letter] >= letters[letter] for letter in "abc")


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({}, "Nothing is chosen yet"),
        (
            {"reason": "NotProfiled", "message": "the reference serves until all is measured"},
            "So far: Nothing is chosen yet / NotProfiled: the reference serves",
        ),
        ({"decision": "Keep", "reason": "NoFeasibleCandidate", "message": "none"}, "So far: Keep / "),
        (
            {"decision": "Blocked", "reason": "Measuring", "message": "m", "lastTime": "2026-11-23T11:00:00Z",
             "trigger": "Spec", "triggeredAt": "2026-11-23T11:30:00Z"},
            "Reassessment since 2026-11-23T11:30:00Z (Spec): Blocked / Measuring: m",
        ),
    ],
)  # fmt: skip
def test_why_says_what_is_known_and_when(
    folder: Path, capsys: pytest.CaptureFixture[str], memory: dict[str, Any], said: str
) -> None:
    """Never that nothing was decided above decisions, and no time that there is not."""
    status = STATUS | {"reassessment": memory}
    Store.open(folder / "objects", lambda new, _: new).write_status(DEPLOYMENT, "chat", status)
    told = printed(capsys, "why", "chat")
    assert said in told
    assert "Nothing has been decided yet" not in told
    assert "()" not in told
    assert "Nothing was done yet" not in told


def test_a_request_by_hand_stands_until_it_is_answered() -> None:
    def asked(annotation: dict[str, str], **memory: str) -> str:
        obj = OBJECT | {
            "metadata": {"name": "chat", "annotations": annotation},
            "status": STATUS | {"reassessment": memory},
        }
        return WhyView.of(obj, [], 10).asked

    wish = {"helios.dev/switch-to": "wide@2026-11-23T12:00:00Z"}
    said = "switch to wide, requested by hand at 2026-11-23T12:00:00Z"
    assert asked(wish) == asked(wish, triggeredAt="2026-11-23T11:00:00Z") == said
    assert asked(wish, triggeredAt="2026-11-23T12:00:01Z", trigger="Manual") == said
    assert asked(wish, triggeredAt="2026-11-23T12:00:01Z") == ""
    assert asked({"helios.dev/reassess": "now, please"}) == asked({}) == ""


def test_a_blind_loop_is_told_though_it_runs() -> None:
    status = STATUS | {"reassessment": {"blindSince": "2026-11-23T11:59:30Z"}}
    assert WhyView.of(OBJECT | {"status": status}, [], 10).no_data_since == "2026-11-23T11:59:30Z"
    assert WhyView.of(OBJECT | {"status": STATUS}, [], 10).no_data_since is None


def test_the_quality_is_that_of_what_serves() -> None:
    """And not of the best that its candidate could be."""
    deeper = STATUS | {"active": {**STATUS["active"], "layerBudget": 27}}  # type: ignore[dict-item]
    assert StatusView.of(OBJECT | {"status": deeper}, True, NOW).quality_percent is None
    told = deeper | {"active": {**deeper["active"], "qualityPercent": 97}}  # type: ignore[dict-item]
    assert StatusView.of(OBJECT | {"status": told}, True, NOW).quality_percent == 97
