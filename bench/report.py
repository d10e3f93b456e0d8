"""What every bench writes: the machine, the versions, the command, its own figures, and claims with their
spread.

`--output json` prints exactly this document, which is what `bench/results/` holds and what the docs
quote.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from helios_server.planning import PERFORMANCE_VERSION


@dataclass(frozen=True)
class Claim:
    """One figure. `low` and `high`: the range of the paired runs, or an interval that the bench's
    docstring names.
    """

    id: str
    value: float
    low: float
    high: float
    unit: str


def claim(id: str, samples: Sequence[float], unit: str) -> Claim:
    """The median of the runs, with their least and greatest."""
    return Claim(id, *(round(x, 4) for x in (statistics.median(samples), min(samples), max(samples))), unit)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value of which so many percent are not greater. Of none: 0."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(percent * len(values) / 100) - 1)]


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_module()}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser


def publish(
    output: str,
    figures: dict[str, Any],
    claims: Sequence[Claim],
    packages: Sequence[str] = ("torch", "transformers", "grpcio"),
) -> None:
    """Prints the document, or its claims as a short table. `packages`: what the figures depend on."""
    if output == "json":
        document = {
            "command": "python -m " + " ".join([_module(), *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "performanceVersion": PERFORMANCE_VERSION,
            "versions": {name: version(name) for name in packages},
            "figures": figures,
            "claims": [asdict(one) for one in claims],
        }
        print(json.dumps(document, indent=1))
        return
    for one in claims:
        print(f"{one.id:48} {one.value:10g} [{one.low:g}, {one.high:g}] {one.unit}")


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
