"""Every property test with the examples of `make test-long`, and what came of it, as bench/results/ keeps it.

Run as `python -m tests.long FILE [pytest's arguments]`, which writes the document to FILE. A property test is
known by hypothesis' own mark; one that asks hypothesis inside its body carries the mark `long`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bench.report import machine

_TEST_SECONDS = 7200
_PACKAGES = ("hypothesis", "torch", "transformers", "tokenizers", "safetensors", "grpcio")


@dataclass
class Record:
    """A pytest plugin: how each test ended, and its seconds with what it was set up by."""

    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def figures(self) -> dict[str, Any]:
        ended = Counter(self.outcomes.values())
        return {
            "tests": len(self.outcomes),
            **{outcome: ended[outcome] for outcome in ("passed", "failed", "skipped")},
            "seconds_by_test": {name: round(self.seconds[name], 1) for name in sorted(self.outcomes)},
            "not_passed": {name: how for name, how in sorted(self.outcomes.items()) if how != "passed"},
        }


def main(file: Path, arguments: list[str]) -> int:
    """pytest's exit status. Nothing is written when no test ran."""
    os.environ["HELIOS_LONG"] = "1"  # before pytest imports any test
    record, started = Record(), time.monotonic()
    chosen = ["-m", "hypothesis or long", f"--timeout={_TEST_SECONDS}", *arguments]
    status = int(pytest.main(chosen, plugins=[record]))
    if not record.outcomes:
        return status
    document = {
        "command": " ".join(["python -m tests.long", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": machine(),
        "versions": {name: version(name) for name in _PACKAGES},
        "seconds": round(time.monotonic() - started),
        "figures": record.figures(),
    }
    file.write_text(json.dumps(document, indent=1) + "\n")
    return status


def _commit() -> str:
    """With a plus when files differ from it."""
    return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
