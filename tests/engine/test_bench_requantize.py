"""The bench of changes of precision: every way is gone once a round, and no stream is lost on it."""

from __future__ import annotations

from pathlib import Path

from bench import requantize
from tests.checkpoints import make_checkpoint


def test_every_way_has_its_seconds_and_its_pause(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    words = ["--streams=2", "--rounds=2", "--isl=8", "--osl=24", "--between=.05", "--threads=1"]
    found = requantize.measure(requantize.options_of(["--model", f"file://{model}", *words]))
    assert [len(changes) for changes in found.values()] == [2] * len(requantize.WAYS)
    assert all(0 < change["seconds"] < 60 for changes in found.values() for change in changes)
    claims = {claim.id: claim for claim in requantize.claims_of(found)}
    assert len(claims) == 3 * len(requantize.WAYS) + 1
    assert claims["lost"].value == 0
    assert claims["reprefilled-auto-auto-to-int8-int8"].high <= 2
