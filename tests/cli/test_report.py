"""`helios report`: one file of what is kept, of a real run's folder and of objects made for the purpose."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helios_cli import main as command
from helios_cli import report, report_page
from helios_cli.report_options import Weighed, WeighedOption, weighed
from helios_operator.api import serialize
from helios_operator.decide import weigh
from helios_operator.decide.rollout.record import KEPT_HISTORY
from helios_operator.local import events
from helios_operator.local.events import Record
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store

from tests.cli.pages import Page
from tests.decide.test_catalogue import chooser

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EVIL = "<script>alert(\"x\")</script>&<b title='y'>"
DEPTH, REQUESTS = "Layers loaded, over time", "Requests served in all, over time"
QUALITY = "Quality of each option, percent of full depth"
DECIDED = "Quality that decisions used, percent of full depth"


def served(layers: int, candidate: str = "chat", weights: str = "auto", **more: Any) -> dict[str, Any]:
    what = {"candidate": candidate, "revision": 1, "layerBudget": layers, "maxBatchSize": 12}
    return what | {"weightDtype": weights, "kvCacheDtype": "auto"} | more


def change(hour: int, to: dict[str, Any], result: str = "Promoted", **more: Any) -> dict[str, Any]:
    entry = {"time": f"2026-11-23T{hour:02}:00:00Z", "kind": "Grow", "reason": "QualityRestored"}
    return entry | {"to": to, "message": "it grows", "result": result, "atRequest": 100 * hour} | more


def no_text(config_map: str, key: str) -> None:
    """No ConfigMap is there."""


def deployment(**status: Any) -> dict[str, Any]:
    metadata = {"name": "chat", "namespace": "team-a", "creationTimestamp": "2026-11-23T00:00:00Z"}
    return {"metadata": metadata, "spec": {"modelName": "chat", "candidates": []}, "status": status}


def made(
    obj: dict[str, Any], *records: Record, weighing: Weighed | None = None, running: bool = True
) -> Page:
    return Page(report_page.page(report.compose(obj, running, records, [], weighing or Weighed(), NOW)))


def is_self_contained(page: Page) -> bool:
    return not page.fetched and not {"script", "link", "iframe", "img", "object", "base"} & page.tags


# -- a real run ----------------------------------------------------------------------------------------------


def test_a_report_of_a_state_folder_says_what_its_status_says(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.html"
    assert command.main(["report", "chat", "--state", str(state), "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    page, store = Page(file.read_text()), Store.read(state / "objects")
    status = store.get(DEPLOYMENT, "chat")["status"]
    assert is_self_contained(page)
    assert "It does not run." in page.text

    active = status["active"]
    rows = dict(page.tables["What serves"])
    told = rows["Candidate"], rows["Layers"], rows["Batch"]
    assert told == (active["candidate"], str(active["layerBudget"]), str(active["maxBatchSize"]))
    assert rows["Precision"].startswith("auto/auto")

    for row, candidate in zip(
        page.table("Candidates, as the operator last wrote them"), status["candidates"], strict=True
    ):
        assert row["Candidate"] == candidate["name"]
        for title, name in (
            ("Layers", "layerBudget"),
            ("Batch", "maxBatchSize"),
            ("Tokens/s", "tokensPerSecond"),
            ("Quality %", "qualityPercent"),
        ):
            assert row[title] == str(candidate[name])

    options = page.table("Options")
    assert [row["Verdict"] for row in options if row["Candidate"].endswith(" (serves)")] == ["feasible"]
    by_option = {(row["Candidate"].removesuffix(" (serves)"), int(row["Layers"])): row for row in options}
    assert set(by_option) == {("deep", 2), ("deep", 4), ("flat", 2), ("flat", 3)}
    for candidate in status["candidates"]:
        row = by_option[candidate["name"], candidate["layerBudget"]]
        assert int(float(row["Quality %"])) == candidate["qualityPercent"]
        assert float(row["From"]) <= float(row["Quality %"]) <= float(row["To"])
    assert len(page.drawn(QUALITY, "circle")) == 4
    assert len(page.drawn(QUALITY, "line", "target")) == 1
    assert "Target: 30 %" in page.text

    (entry,) = status["history"]
    (row,) = page.table("Changes, oldest first")
    assert (row["Kind"], row["Reason"], row["Result"], row["Seconds"]) == (
        "Select",
        entry["reason"],
        "Promoted",
        str(entry["seconds"]),
    )
    assert row["Why"] == entry["message"]
    assert f"Changes: all 1 are kept, since {entry['time'][:19]}Z." in page.text
    counts = page.table("Requests counted")
    assert {"Time": _clock(entry["time"]), "Requests, at least": str(entry["atRequest"]),
            "Counted at": "change: Select"} in counts  # fmt: skip

    log = events.read(state / "deployments" / "chat" / "events.jsonl")
    numbers = next(record.numbers for record in log if "qualityPercent" in record.numbers)
    judged = page.table("Quality that decisions used")[0]
    assert judged["Quality %"] == f"{numbers['qualityPercent']:.1f}"
    assert judged["At least %"] == f"{numbers['qualityLowPercent']:.1f}"
    profiles = {row["Name"] for row in page.table("Profiles of this deployment")}
    assert profiles == set(store.names(PROFILE))


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S")


def test_why_writes_the_same_file(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["report", "chat", "--state", str(state)]) == 0
    assert command.main(["why", "chat", "--state", str(state), "--html", "why.html"]) == 0
    assert command.main(["report", "chat", "--state", str(state), "--output", "-"]) == 0
    printed = capsys.readouterr().out.removeprefix("helios-chat.html\nwhy.html\n")
    files = [Path("helios-chat.html").read_text(), Path("why.html").read_text(), printed]
    assert len({re.sub(r"Made [\d :-]+;|<td>\d+[smhd]</td>", "", text) for text in files}) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [(("--output", "json"), "--html with --output json"), (("--last", "3"), "not allowed with argument")],
)
def test_a_file_and_a_form_of_printing_are_not_both_asked_for(
    more: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["why", "chat", "--html", "why.html", *more]) == 2
    assert told in capsys.readouterr().err


def test_a_row_of_another_release_is_left_out_and_named(state: Path) -> None:
    store = Store.read(state / "objects")
    rows = store.objects(PROFILE)
    broken = next(row for row in rows if row["spec"]["kind"] == "Quality")
    broken["status"]["quality"]["exits"] = "many"
    found = weighed(store.get(DEPLOYMENT, "chat"), rows, [], no_text, NOW)
    (note,) = found.notes
    assert broken["metadata"]["name"] in note
    unknown = broken["spec"]["quality"]["candidate"]["uri"].removeprefix("pvc://models/")
    full = {option.candidate: option for option in found.options}
    assert (unknown in full, full[unknown].quality_percent) == (True, None)


def test_why_names_what_it_leaves_out(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(state, tmp_path / "older")
    file = next((tmp_path / "older" / "objects" / "heliosprofiles").glob("t-*.json"))
    broken = json.loads(file.read_text())
    broken["status"]["timing"]["fit"] = "good"
    file.write_text(json.dumps(broken))
    assert command.main(["why", "chat", "--state", str(tmp_path / "older")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Left out, because it is not of this release: {broken['metadata']['name']}" in told


def test_a_deployment_of_another_release_is_told_too() -> None:
    found = weighed({"metadata": {"name": "chat"}, "spec": {"slo": 7}}, [], [], no_text, NOW)
    assert found.options == []
    assert found.notes[0].startswith("No options: the deployment is not of this release: ")


def test_a_place_that_cannot_be_written_is_named(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["report", "chat", "--state", str(state), "--output", "/proc/no/report.html"]) == 2
    assert "/proc/no" in capsys.readouterr().err


# -- what is kept, and what is not ---------------------------------------------------------------------------


def test_depth_follows_the_changes_that_stayed() -> None:
    int8 = served(24, weights="int8", since="2026-11-23T02:00:00Z")
    history = [
        change(4, served(27), **{"from": int8}),
        change(6, served(20, "wide"), "RolledBack", **{"from": served(27)}),
        change(9, served(30), **{"from": served(27)}),
    ]
    page = made(deployment(active=served(30), history=history))
    told = [(row["From"][11:16], row["To"][11:16], row["Layers"], row["Precision"])
            for row in page.table("What served, when")]  # fmt: skip
    assert told == [
        ("02:00", "04:00", "24", "int8/auto"),
        ("04:00", "09:00", "27", "auto/auto"),
        ("09:00", "12:00", "30", "auto/auto"),
    ]
    lines = page.drawn(DEPTH, "line", "served")
    assert [line["class"] for line in lines] == ["served c0", "served c1", "served c1"]
    shares = [(float(line["x1"]), float(line["x2"])) for line in lines]
    assert shares[0][1] == shares[1][0] < shares[1][1] == shares[2][0]
    assert (shares[1][1] - shares[1][0]) / (shares[0][1] - shares[0][0]) == pytest.approx(2.5, rel=0.01)
    assert len(page.drawn(DEPTH, "path", "undone")) == 1
    heights = [float(line["y1"]) for line in lines]
    assert heights == sorted(heights, reverse=True)


def test_requests_are_drawn_where_they_were_counted() -> None:
    memory = {"lastTime": "2026-11-23T10:00:00Z", "requests": 950, "decision": "Keep"}
    history = [change(4, served(24)), change(9, served(27)), change(11, served(30), atRequest=7)]
    page = made(deployment(history=history, reassessment=memory))
    counted = [(row["Requests, at least"], row["Counted at"]) for row in page.table("Requests counted")]
    assert counted == [("0", "created"), ("400", "change: Grow"), ("900", "change: Grow"),
                       ("950", "last reassessment")]  # fmt: skip
    (line,) = page.drawn(REQUESTS, "polyline")
    heights = [float(point.split(",")[1]) for point in line["points"].split()]
    assert (heights[0] - heights[1]) / (heights[0] - heights[3]) == pytest.approx(400 / 950, abs=0.01)


def test_a_repair_is_drawn_by_the_numbers_of_the_remedy_that_was_chosen() -> None:
    numbers = {"Grow.qualityPercent": 94.0, "Grow.qualityLowPercent": 92.1,
               "SwapHeads.qualityPercent": 87.0, "SwapHeads.qualityLowPercent": 80.0}  # fmt: skip
    record = Record("2026-11-23T04:00:00Z", "chat", "decision", "Set limits of revision 1", "Normal",
                    "QualityRestored", "it grows", numbers)  # fmt: skip
    page = made(deployment(history=[change(4, served(27))]), record, record, weighing=Weighed(target=92))
    (row,) = page.table("Quality that decisions used")
    assert (row["Quality %"], row["At least %"]) == ("94.0", "92.1")
    assert len(page.drawn(DECIDED, "circle")) == 1
    (target,) = page.drawn(DECIDED, "line", "target")
    (bound,) = page.drawn(DECIDED, "line", "bound")
    assert float(target["y1"]) >= float(bound["y1"]) > float(bound["y2"])


def test_what_is_not_kept_is_said() -> None:
    full = [change(hour, served(24)) for hour in range(1, KEPT_HISTORY + 1)]
    record = Record("2026-11-23T11:00:00Z", "chat", "event", "chat", "Normal", "R", "m")
    page = made(deployment(history=full), record)
    assert f"the last {KEPT_HISTORY}, kept since 2026-11-23T01:00:00Z; earlier ones are not kept" in page.text
    assert "Decisions and events: 1, kept since 2026-11-23T11:00:00Z." in page.text
    assert "Latencies and audited quality over time are in the metrics" in page.text


def test_a_deployment_that_has_done_nothing_yet_has_a_report() -> None:
    obj = deployment()
    del obj["status"]
    page = made(obj, weighing=Weighed(92, notes=["Nothing is timed yet."]), running=False)
    assert page.charts == {}
    for words in (
        "nothing serves yet",
        "Nothing has been decided yet.",
        "No count of requests is kept yet.",
        "No quality is measured yet.",
        "Nothing is timed yet.",
        "Changes: none yet.",
        "Decisions and events: none are kept any more.",
    ):
        assert words in page.text


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    record = Record("2026-11-23T04:00:00Z", EVIL, "event", EVIL, "Normal", EVIL, EVIL, {EVIL: 1.0})
    history = [change(4, served(24, EVIL), message=EVIL, reason=EVIL),
               change(5, served(30, EVIL), EVIL, kind=EVIL)]  # fmt: skip
    condition = {"type": EVIL, "status": EVIL, "reason": EVIL, "message": EVIL,
                 "lastTransitionTime": "2026-11-23T04:00:00Z"}  # fmt: skip
    obj = deployment(
        phase=EVIL,
        endpoint=EVIL,
        active=served(24, EVIL),
        history=history,
        conditions=[condition],
        candidates=[{"name": EVIL, "state": EVIL, "feasible": True, "message": EVIL}],
        reassessment={"decision": EVIL, "reason": EVIL, "message": EVIL},
    )
    obj["metadata"]["name"] = EVIL
    option = WeighedOption(EVIL, 24, EVIL, 12, 90.0, 88.0, 92.0, 100.0, 5.0, False, EVIL, EVIL, True)
    page = made(obj, record, weighing=Weighed(92, [option], [EVIL]))
    assert is_self_contained(page)
    assert "b" not in page.tags
    assert page.tables["Decisions and events, newest first"][1][1:] == [EVIL, EVIL, EVIL, f"{EVIL}=1"]
    assert page.table("Changes, oldest first")[0]["Why"] == EVIL
    assert {DEPTH, QUALITY} <= set(page.charts)


def test_half_a_character_in_a_message_is_no_reason_to_write_nothing(tmp_path: Path) -> None:
    record = Record("2026-11-23T04:00:00Z", "chat", "event", "chat", "Normal", "R", "caf\udce9 \x00")
    told = report.compose(deployment(), True, [record], [], Weighed(), NOW)
    report_page.write(told, tmp_path / "report.html")
    assert "caf? " in (tmp_path / "report.html").read_text()


def test_charts_stand_beside_tables_and_bear_extremes() -> None:
    """One span of no length, one option known exactly, one without bounds above."""
    options = [
        WeighedOption("a", 24, "auto/auto", 12, 100.0, 100.0, 100.0, 10.0, 5.0, True, "", "", True),
        WeighedOption("b", 24, "auto/auto", 12, 50.0, 0.0, float("inf"), 10.0, 5.0, False, "", "", False),
    ]
    obj = deployment(history=[change(0, served(24))])
    obj["metadata"]["creationTimestamp"] = None
    page = made(obj, weighing=Weighed(None, options), running=False)
    assert len(page.drawn(QUALITY, "circle")) == 2
    assert page.drawn(QUALITY, "line", "target") == []
    for elements in page.charts.values():
        places = [float(v) for _, given in elements for k, v in given.items() if k in ("x1", "x2", "cx", "x")]
        assert all(0 <= place <= 760 for place in places)
    assert [row["To"] for row in page.table("Options")] == ["100.0", "inf"]


@pytest.mark.parametrize("days", [0, 0.001, 1, 400])
def test_times_of_a_chart_tell_each_other_apart(days: float) -> None:
    begin = NOW - timedelta(days=days)
    obj = deployment(history=[change(0, served(24), time=begin.isoformat())])
    obj["metadata"]["creationTimestamp"] = begin.isoformat().replace("+00:00", "Z")[:19] + "Z"
    page = made(json.loads(json.dumps(obj)))
    assert page.drawn(DEPTH, "text")


# -- options -------------------------------------------------------------------------------------------------


def test_options_of_a_catalogue_are_those_that_the_operator_weighs() -> None:
    """Of models that a selector finds, from the objects alone."""
    there = chooser()
    there.run(30)
    rows = [serialize.profile(row) for row in there.rows.values()]
    models = [serialize.model(model) for model in there.models]
    found = weighed(serialize.deployment(there.deployment), rows, models, no_text, there.now)
    judged = weigh(there.snapshot(), there.now)[1]
    assert found.notes == []
    assert {option.candidate for option in found.options} == {"big", "small"}
    assert [(o.candidate, o.layers, o.feasible, o.reason) for o in found.options] == [
        (o.contender.name, o.layer_budget, o.verdict.ok, o.verdict.reason) for o in judged
    ]
    (serving,) = [option for option in found.options if option.serves]
    active = there.deployment.status.active
    assert active is not None
    assert (serving.candidate, serving.layers, serving.feasible) == (
        active.candidate,
        active.layer_budget,
        True,
    )
    assert weighed(serialize.deployment(there.deployment), rows, [], no_text, there.now).options == []
