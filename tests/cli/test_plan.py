"""`helios plan` and the table of `helios why`: every option, on what was measured and on whose prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helios_cli import main as command
from helios_cli.options import OptionView, _rounded, table
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store

from tests.cli.command import write
from tests.local.world import PROMPTS, deployment

ON_CPU = ("--device", "cpu", "--dtype", "float32")


@pytest.fixture
def plan(volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Of a deployment with these changes, on what stands there: status, JSON or the line of the error."""

    def run(profiles: Path, *arguments: object, table: bool = False, **spec: Any) -> tuple[int, Any]:
        file = write(tmp_path / "planned.yaml", deployment(**spec))
        told = ["plan", file, "--profiles", profiles, "--volumes", volumes, *ON_CPU, *arguments]
        code = command.main([*map(str, told), *(() if table else ("-o", "json"))])
        out = capsys.readouterr()
        if code == 2:
            return code, out.err
        return code, out.out if table else json.loads(out.out)[0]

    return run


def results_of(state: Path, candidate: str, to: Path) -> Path:
    """As `helios profile --result` wrote them, in a folder."""
    to.mkdir()
    for row in Store.read(state / "objects").objects(PROFILE):
        if f"models/{candidate}" in json.dumps(row["spec"]):
            job = state / "deployments" / "chat" / "jobs" / row["metadata"]["name"]
            shutil.copy(job / "result.json", to / f"{row['spec']['kind']}.json")
    return to


def only(name: str) -> list[dict[str, Any]]:
    return [c for c in deployment()["spec"]["candidates"] if c["name"] == name]


def test_why_shows_the_table_of_plan(plan: Any, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, planned = plan(state)
    assert command.main(["why", "chat", "--state", str(state), "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ours = [{**option, "standing": ""} for option in planned["options"]]
    assert [{**option, "standing": ""} for option in told["options"]] == ours
    (serves,) = (option for option in told["options"] if option["standing"] == "serves")
    active = Store.read(state / "objects").get(DEPLOYMENT, "chat")["status"]["active"]
    chosen = planned["chosen"]
    assert (serves["candidate"], serves["layers"]) == (active["candidate"], active["layerBudget"])
    assert serves["rows"] == chosen["rows"] == active["maxBatchSize"]
    quality = chosen["numbers"]["qualityPercent"]
    assert quality == active["qualityPercent"] == serves["numbers"]["qualityPercent"]
    command.main(["why", "chat", "--state", str(state)])
    printed = capsys.readouterr().out
    assert all(f"{o['candidate']} " in printed for o in told["options"])
    assert f"{quality:g} (>=" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("objective", "figure", "best", "title"),
    [
        ("throughput", "tokensPerSecondLow", -1, "TOK/S (>=)"),
        ("latency", "latencyMs", 1, "LATENCY MS"),
        ("quality", "qualityLowPercent", -1, "QUALITY % (>=)"),
        ("energy", "joulesPerMegatoken", 1, "J/TOK"),
    ],
)
def test_the_table_shows_what_it_is_ordered_by(
    plan: Any, state: Path, objective: str, figure: str, best: int, title: str
) -> None:
    slo = {"minQualityPercent": 1, "optimizationType": objective}
    _, view = plan(state, slo=slo)
    assert view["objective"] == objective
    ordered = [(not o["feasible"], best * o["numbers"].get(figure, 0.0)) for o in view["options"]]
    assert ordered == sorted(ordered)
    _, printed = plan(state, table=True, slo=slo)
    said = " ".join(printed.split())
    assert "as timed, the feasible first, then by" in said
    assert f"{title} CANDIDATE" in said
    assert title.partition(" (")[0] in said.partition(" CANDIDATE ")[2]
    shown = [o["numbers"][figure] for o in view["options"] if figure in o["numbers"]]
    assert len(shown) == (0 if objective == "energy" else len(view["options"]))
    sign = ">=" if best < 0 else ""
    assert all(f"{sign}{_rounded(number)}" in printed for number in shown)


def test_every_precision_with_its_bounds_fits_a_terminal_a_line_each() -> None:
    def option(layers: int, weights: str, speed: float) -> OptionView:
        numbers = {
            "qualityPercent": 95, "qualityLowPercent": 92.8, "tokensPerSecond": speed,
            "tokensPerSecondLow": speed - 19.6, "e2eMs": 20_123.4,
        }  # fmt: skip
        return OptionView(
            "smollm2", layers, f"{weights}/int8", 110, layers == 30, "QualityTooLow", "", numbers
        )

    options = [option(layers, weights, 2041.6) for weights in ("auto", "int8") for layers in (24, 30)]
    (told,) = table(options, "throughput")
    assert [len(line) <= 80 for line in told.splitlines()] == [True] * 5
    assert told.count("95 (>=92.8) 2042 (>=2022) 20123  QualityTooLow") == 2


def test_status_and_why_say_of_which_kind_their_speeds_are(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for verb in ("status", "why"):
        assert command.main([verb, "chat", "--state", str(state)]) == 0
        said[verb] = " ".join(capsys.readouterr().out.split())
    assert "TOK/S is predicted at today's pace, that of the pods' newest steps; `why`" in said["status"]
    assert "Every option as timed, the feasible first, then by" in said["why"]
    assert "speeds in `status` and in decisions are at today's pace:" in said["why"]


def test_results_of_profile_are_read(plan: Any, state: Path, tmp_path: Path) -> None:
    _, from_state = plan(state, candidates=only("deep"))
    found = results_of(state, "deep", tmp_path / "results")
    code, from_results = plan(found, candidates=only("deep"))
    assert code == 0
    assert from_results["options"] == from_state["options"]
    assert from_results["missing"] == []
    code, timed = plan(found / "Timing.json", candidates=only("deep"))
    assert code == 1
    assert {option["reason"] for option in timed["options"]} == {"NotProfiled"}
    assert timed["missing"] == ["Quality of deep"]


def test_results_of_others_are_refused_by_their_file(plan: Any, state: Path, tmp_path: Path) -> None:
    found = results_of(state, "deep", tmp_path / "results")
    code, said = plan(found / "Quality.json", candidates=only("flat"))
    assert (code, "Quality.json: measures 'deep', which is no candidate of FILE" in said) == (2, True)
    code, said = plan(found / "Timing.json")
    assert (code, "Timing.json: does not say which of 2 backbones it times" in said) == (2, True)
    (found / "Failed.json").write_text(
        json.dumps({"schema": "helios-result/1", "error": {"field": "f", "problem": "p", "fix": "x"}})
    )
    code, said = plan(found / "Failed.json", candidates=only("deep"))
    assert (code, "Failed.json: reports a failure (f: p; x)" in said) == (2, True)


def test_foreign_prompts_are_set_aside_and_named(plan: Any, state: Path, tmp_path: Path) -> None:
    code, view = plan(state, profiling={"prompts": {"inline": [*PROMPTS, "One more."]}})
    assert code == 1
    assert len(view["set_aside"]) == 2
    assert view["prompts"] == "none measured on FILE's inline prompts"
    assert sorted(view["missing"]) == ["Quality of deep", "Quality of flat"]
    found = results_of(state, "deep", tmp_path / "results")
    code, view = plan(found, candidates=only("deep"), profiling={"prompts": {"inline": ["Other."]}})
    assert (code, len(view["set_aside"])) == (1, 1)
    _, own = plan(state)
    assert own["prompts"].startswith("FILE's inline prompts: 3, sha256:")
    assert own["set_aside"] == []
    live = {"prompts": {"live": {"maxPrompts": 8, "consent": True}}}
    _, others = plan(state, profiling=live)
    assert others["prompts"].startswith("prompts of chat: 3, sha256:")


def test_memory_counts_or_is_refused(plan: Any, state: Path) -> None:
    code, said = plan(state, "--memory-mib", 1000)
    assert (code, "memory-mib: 1000 is less than 1 x spec.limits.memoryMiB 1500" in said) == (2, True)
    code, said = plan(state, "--memory-mib", 2000, replicas=2)
    assert (code, "is less than 2 x spec.limits.memoryMiB 1500" in said) == (2, True)
    assert plan(state, "--memory-mib", 0)[0] == 2
    rows = []
    for given in (100, 3000):
        _, view = plan(state, "--memory-mib", given, limits={})
        assert view["memory_mib"] == given
        _, same = plan(state, limits={"memoryMiB": given})
        assert [o["rows"] for o in view["options"]] == [o["rows"] for o in same["options"]]
        rows.append(max(o["rows"] for o in view["options"]))
    assert rows[0] < rows[1]


def test_without_prompts_plan_says_so(plan: Any, state: Path, tmp_path: Path) -> None:
    found = results_of(state, "deep", tmp_path / "results") / "Timing.json"
    code, view = plan(found, candidates=only("deep"), profiling={})
    assert code == 1
    assert {option["reason"] for option in view["options"]} == {"NoPrompts"}
    _, printed = plan(found, table=True, candidates=only("deep"), profiling={})
    assert "quality: none measured" in printed
    assert max(map(len, printed.splitlines())) <= 80
