"""Where profiles may come from: a state folder, and files that `helios profile --result` wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from helios_cli import measured
from helios_cli.main import main
from helios_contract import results
from helios_contract.results import (
    CandidateQuality,
    Failure,
    Inspection,
    OptionPasses,
    Quality,
    Result,
    Tasks,
)
from helios_operator.api import serialize
from helios_operator.api.rows import Hardware, QualityRow, Row, TasksRow, TimingRow
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError
from helios_operator.local.store import Store
from helios_server.planning import PERFORMANCE_VERSION

from tests.decide.truth import BARE_SMALL
from tests.simulate import made


def test_a_state_folder_has_rows_and_what_candidates_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, rows = made.measured()
    store = Store.open(tmp_path / "state" / "objects", lambda new, old: new)
    for row in rows:
        store.apply(serialize.profile(row))
    served = Deployment("chat", "default", "uid", 1, world.spec, world.status)
    store.apply(serialize.deployment(served))
    store.write_status("HeliosDeployment", "chat", serialize.status(world.status))
    told = ["simulate", "--spec", str(made.write_spec(tmp_path / "chat.yaml")), "--generate", "20"]
    for where in (("--profiles", f"{tmp_path}/state"), ("--state", f"{tmp_path}/state")):
        assert main([*told, *where, "--no-hindsight"]) == 0
        assert "FirstSelection" in capsys.readouterr().out


def rows_read(folder: Path, contenders: Iterable[Contender], here: Hardware) -> list[Row]:
    world, _ = made.measured()
    served = Deployment("chat", "default", "uid", 1, world.spec)
    snapshot = Snapshot(served, here, 0, PERFORMANCE_VERSION)
    return list(measured.rows_of(measured.read(folder).results, tuple(contenders), snapshot))


def contenders() -> list[Contender]:
    world, _ = made.measured()
    return [Contender(c, resolved=world.resolved(c)) for c in world.spec.candidates]


def test_results_of_jobs_are_read_as_rows(tmp_path: Path) -> None:
    world, rows = made.measured()
    resolved = {c.name: world.resolved(c) for c in world.spec.candidates}
    names = {found.exits_digest: name for name, found in resolved.items()}
    timings = [row for row in rows if isinstance(row, TimingRow)]
    qualities = [row for row in rows if isinstance(row, QualityRow)]
    prose = [row for row in qualities if row.identity.prompts_digest == "sha256:prose"]
    scored = tuple(
        CandidateQuality(names[row.identity.exits_digest], row.identity.exits_digest, row.exits)
        for row in prose
    )
    quality = Quality(prompts_digest="sha256:prose", rows=scored, **vars(prose[0].texts))
    code, depth = resolved["code"], resolved["code"].exit_layers[0]
    asked = (
        OptionPasses("code", "", code.num_layers, "c"),
        OptionPasses("code", code.exits_digest, depth, "8"),
    )
    tasks = Tasks(tasks_digest="sha256:tasks", tasks=2, rows=asked)
    documents: tuple[Result, ...] = (Inspection(resolved), timings[0].measured, quality, tasks)
    for number, document in enumerate(documents):
        (tmp_path / f"{number}.json").write_text(results.to_json(document))
    assert measured.resolved(measured.read(tmp_path), world.spec.candidates) == resolved
    found = rows_read(tmp_path, contenders(), timings[0].identity.hardware)
    assert [row.measured for row in found if isinstance(row, TimingRow)] == [timings[0].measured]
    read = [row for row in found if isinstance(row, QualityRow)]
    assert [(row.identity, row.exits) for row in read] == [(row.identity, row.exits) for row in prose]
    told = [row for row in found if isinstance(row, TasksRow)]
    assert [(row.identity.exits_digest, row.identity.layer_budget, row.passes) for row in told] == [
        ("", code.num_layers, "c"), (code.exits_digest, depth, "8"),
    ]  # fmt: skip
    assert {row.identity.model_uri for row in told} == {candidate(world.spec.candidates, "code").uri}


def candidate(candidates: Iterable[Candidate], name: str) -> Candidate:
    return next(each for each in candidates if each.name == name)


def test_a_timing_of_nobody_knows_which_model_is_refused_by_its_file(tmp_path: Path) -> None:
    world, rows = made.measured()
    (timing,) = (row for row in rows if isinstance(row, TimingRow))
    (tmp_path / "timing.json").write_text(results.to_json(timing.measured))
    general = world.spec.candidates[0]
    small = replace(general, name="small", uri="file:///models/small")
    looked = [*contenders(), Contender(small, resolved=BARE_SMALL.resolved())]
    for number, who in ((2, looked), (0, [Contender(general)])):
        with pytest.raises(OperatorError, match=f"timing.json: does not say which of {number} backbones"):
            rows_read(tmp_path, who, timing.identity.hardware)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Quality(prompts_digest="sha256:p", rows=()), "is no quality measurement"),
        (Quality(prompts_digest="sha256:p", rows=(CandidateQuality("code", "", ()),)), "measures 'code'"),
        (Tasks(tasks_digest="sha256:t", tasks=1, rows=()), "is of no option"),
        (
            Tasks(tasks_digest="sha256:t", tasks=1, rows=(OptionPasses("code", "x", 1, "8"),)),
            "measures 'code'",
        ),
        (Failure("tasks", "f", "p", "x"), "reports a failure"),
    ],
)
def test_a_result_of_no_use_is_refused_by_its_file(tmp_path: Path, result: Result, said: str) -> None:
    (tmp_path / "result.json").write_text(results.to_json(result))
    _, rows = made.measured()
    here = next(row.identity.hardware for row in rows if isinstance(row, TimingRow))
    with pytest.raises(OperatorError, match=f"result.json: {said}"):
        rows_read(tmp_path, contenders(), here)


def test_a_result_of_another_release_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": "helios-result/1", "timing": 7}')
    with pytest.raises(OperatorError, match=r"result\.json: is no result document"):
        measured.read(tmp_path)
