"""How far a measurement is, as it is said on stderr, and as `helios up` hears it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from helios_contract.progress import heard
from helios_contract.serves import REFERENCE, Precision
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.quality import QualitySettings, measure_quality
from helios_server.profile.sweep import Effort, sweep
from helios_server.progress import Progress, Stage, Stages

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS


def said(err: str) -> list[str]:
    return [words for line in err.splitlines() if (words := heard(line))]


def test_the_rest_is_told_by_the_pace_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 10.0, 10.0, 12.0, 40.0, 40.0])
    progress = Progress(lambda: next(now))
    progress.share(1, 4)
    progress.share(2, 4)  # too soon after the last
    progress.share(2, 4)
    assert said(capsys.readouterr().err) == ["25 %, about 30 s left", "50 %, about 40 s left"]


def test_a_part_is_told_as_a_share_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """The last of three: what came before it took 20 s."""
    now = iter([0.0, 30.0, 30.0])
    Progress(lambda: next(now)).part(2, 3)(0.5)
    assert said(capsys.readouterr().err) == ["83 %, about 6 s left"]


STAGES = {"reading": Stage(100), "training": Stage(seconds=300), "measuring": Stage(10)}


def test_stages_that_have_not_begun_are_told_at_the_pace_of_the_one_that_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ten of 100 units in 50 s: 450 s of its own, 300 of the clock's, and 10 units more."""
    now = iter([0.0, 0.0, 50.0, 50.0, 50.0])
    Stages(Progress(lambda: next(now)), STAGES).begin("reading")(0.1)
    assert said(capsys.readouterr().err) == ["6 %, about 800 s left"]


def test_a_stage_that_a_clock_ends_is_told_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Reading took 100 s, a second a unit."""
    now = iter([0.0, 0.0, 100.0, 100.0, 100.0, 100.0, 175.0, 175.0])
    stages = Stages(Progress(lambda: next(now)), STAGES)
    stages.begin("reading")(1.0)
    stages.begin("training")(0.25)
    assert said(capsys.readouterr().err) == ["24 %, about 310 s left", "43 %, about 235 s left"]


def test_a_stage_is_told_the_more_at_its_own_pace_the_more_of_it_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was expected to take 10 s takes 100: 77.5 by a quarter of the one and three of the other."""
    now = iter([0.0, 0.0, 100.0, 100.0, 100.0, 100.0, 175.0, 175.0, 175.0])
    progress = Progress(lambda: next(now))
    stages = Stages(progress, {name: STAGES[name] for name in ("reading", "measuring")})
    stages.begin("reading")(1.0)
    measuring = stages.begin("measuring")
    measuring(0.0)  # nothing is known of it yet
    measuring(0.75)
    assert said(capsys.readouterr().err) == ["91 %, about 10 s left", "90 %, about 19 s left"]


def test_a_sweep_tells_which_share_of_it_is_done() -> None:
    told: list[float] = []
    sweep([[lambda: None]], Effort(seconds=0.0, rounds=4), passed=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_nothing_is_told_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 10.0])
    Progress(lambda: next(now)).share(0, 4)
    assert capsys.readouterr().err == ""


def test_other_lines_are_not_heard() -> None:
    assert heard("[  12.0 s] layer 5 of 30: general scored") is None
    assert heard("error: progress: 5 %") is None


def test_quality_tells_of_each_layer_in_each_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    opened = open_backbone([Candidate("one", f"file://{model}", None, None, ())], volumes=None)
    seconds = count(0.0, 10.0)
    settings = QualitySettings("cpu", "float64", None)
    precisions = (REFERENCE, Precision("int8", "auto"))
    measure_quality(opened, TEXTS, settings, Progress(lambda: next(seconds)), precisions)
    told = [words.partition(",")[0] for words in said(capsys.readouterr().err)]
    assert told == ["25 %", "50 %", "75 %", "100 %"]
