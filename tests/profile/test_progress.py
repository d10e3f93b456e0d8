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
from helios_server.profile.report import Progress
from helios_server.profile.sweep import Effort, sweep

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


def test_a_sweep_tells_which_share_of_it_is_done() -> None:
    told: list[float] = []
    sweep([lambda: None], Effort(seconds=0.0, rounds=4), passed=told.append)
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
