"""What `inspect` refuses before anything is measured."""

from __future__ import annotations

from pathlib import Path

from helios_server.profile.candidates import Candidate
from helios_server.profile.inspect import inspect

from tests.checkpoints import make_checkpoint, without_tokenizer


def test_a_checkpoint_without_tokenizer_is_a_problem_of_its_own_alone(tmp_path: Path) -> None:
    whole = make_checkpoint(tmp_path / "whole")
    lacking = without_tokenizer(make_checkpoint(tmp_path / "lacking"))
    candidates = [Candidate(path.name, f"file://{path}", None, None, ()) for path in (whole, lacking)]
    found = inspect(candidates, None)
    assert set(found.resolved) == {"whole"}
    assert set(found.problems) == {"lacking"}
    assert f"{lacking}: has no tokenizer (none of tokenizer.json" in found.problems["lacking"]
    assert found.problems["lacking"].endswith("Put the model's tokenizer.json there")
