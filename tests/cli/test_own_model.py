"""docs/own-model.md, command by command, on a small checkpoint, with less time to train."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.checkpoints import make_checkpoint
from tests.cli.command import up
from tests.documentation.blocks import Block, of
from tests.sizes import LONG

WORDS = ("the", "then", "other", "on", "in", "win", "tin", "thin", "sea", "ship", "12", "def", "return")


def text(lines: int, seed: int) -> str:
    dice = random.Random(seed)
    return "".join(" ".join(dice.choice(WORDS) for _ in range(20)) + "\n" for _ in range(lines))


def shell(script: str, folder: Path) -> str:
    """What a block prints, on both streams; every command of it succeeds."""
    helios = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{helios}:{os.environ['PATH']}",
        "HELIOS_STATE": str(folder / "state"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_page_has_ten_commands() -> None:
    blocks = of(f"tests/cli/test_own_model.py::{test_every_command_does_what_the_page_says.__name__}")
    commands = [line for block in blocks for line in block.lines if line.startswith(("helios ", "cat >"))]
    assert len(commands) == 10


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it tunes and times")
def test_every_command_does_what_the_page_says(documented: list[Block], tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "my-model", layers=5, dtype=torch.float32)
    (tmp_path / "traffic.txt").write_text(text(300, seed=1))
    (tmp_path / "unseen.txt").write_text(text(32, seed=2))
    look, tune, measure, serve, ask = (block.text for block in documented)
    looked = shell(look, tmp_path)
    assert "my-model, 5 layers, in 8.0 GiB" in looked
    assert "Candidates" in looked
    tuned = shell(tune.replace("--seconds 300", "--seconds 2"), tmp_path)
    assert re.search(r"^traffic +4 of 5 +\d", tuned, re.MULTILINE)
    assert re.search(r"^traffic +5 of 5 +100.0 %", tuned, re.MULTILINE)
    assert "warning: traffic: " in tuned
    shell(measure, tmp_path)
    shell(serve.replace("helios up own.yaml\n", ""), tmp_path)
    (tmp_path / "state").mkdir()
    with up(tmp_path / "own.yaml", tmp_path / "state" / "own", tmp_path) as running:
        running.until("AllCandidatesCurrent", timeout=1200)
        said = shell(ask, tmp_path)
        assert "mine" in said
        assert running.interrupt() == 0
