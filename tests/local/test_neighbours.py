"""What one deployment of a machine measured, another finds again; what is of its own traffic, it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helios_operator.local.runtime import LocalRuntime
from helios_operator.local.store import PROFILE, Store

from tests.local.world import PROMPTS, deployment, options

LIVE = {"prompts": {"live": {"maxPrompts": 8, "consent": True}}}
OTHER = {"prompts": {"inline": [*PROMPTS, "One more."]}}


async def found(state: Path, volumes: Path, folder: Path, **spec: Any) -> list[str]:
    """Kinds of the rows that a deployment begins with, beside that one."""
    wanted = deployment(replicas=0, **spec) | {"metadata": {"name": "second"}}
    told = options(volumes, neighbours=(state, folder / "gone"))
    async with LocalRuntime([wanted], folder / "second", told) as runtime:
        told_of = [record.message for record in runtime.events("second") if record.reason == "Found"]
    rows = Store.read(folder / "second" / "objects").objects(PROFILE)
    assert bool(rows) == bool(told_of)
    assert all(row["status"]["phase"] == "Complete" for row in rows)
    return sorted(str(row["spec"]["kind"]) for row in rows)


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        ({}, ["Quality", "Quality", "Timing", "Timing"]),
        ({"profiling": OTHER}, ["Timing", "Timing"]),
        ({"profiling": LIVE}, ["Timing", "Timing"]),
        ({"candidates": [{"name": "x", "uri": "pvc://models/x"}]}, []),
        ({"candidates": deployment()["spec"]["candidates"][:1]}, ["Quality", "Timing"]),
    ],
)
async def test_rows_are_found_again(
    state: Path, volumes: Path, tmp_path: Path, spec: dict[str, Any], kinds: list[str]
) -> None:
    assert await found(state, volumes, tmp_path, **spec) == kinds
