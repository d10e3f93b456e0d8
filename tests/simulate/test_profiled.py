"""Where profiles may come from: a state folder, and files that `helios profile --result` wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helios_cli import profiled
from helios_cli.main import main
from helios_contract import results
from helios_contract.results import CandidateQuality, Inspection, Quality
from helios_operator.api import serialize
from helios_operator.api.rows import QualityRow, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.errors import OperatorError
from helios_operator.local.store import Store

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
    documents = (Inspection(resolved), timings[0].measured, quality)
    for number, document in enumerate(documents):
        (tmp_path / f"{number}.json").write_text(results.to_json(document))
    here = timings[0].identity.hardware
    found = profiled.known(profiled.stored(tmp_path), world.spec.candidates, here)
    assert found.resolved == resolved
    assert [row.measured for row in found.rows if isinstance(row, TimingRow)] == [timings[0].measured]
    read = [row for row in found.rows if isinstance(row, QualityRow)]
    assert [(row.identity, row.exits) for row in read] == [(row.identity, row.exits) for row in prose]


def test_a_timing_of_nobody_knows_which_model_is_refused(tmp_path: Path) -> None:
    world, rows = made.measured()
    (timing,) = (row for row in rows if isinstance(row, TimingRow))
    (tmp_path / "timing.json").write_text(results.to_json(timing.measured))
    here, objects = timing.identity.hardware, profiled.stored(tmp_path)
    general = world.spec.candidates[0]
    small = replace(general, name="small", uri="file:///models/small")
    looked = {"general": world.resolved(general), "small": BARE_SMALL.resolved()}
    objects.append(json.loads(results.to_json(Inspection(looked))))
    for known in (objects, objects[:1]):
        with pytest.raises(OperatorError, match="profiles: a timing does not say whose it is"):
            profiled.known(known, (general, small), here)
