"""A spec, and profiles of its candidates as a state folder would have them: measured of an invented truth."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import yaml
from helios_contract import results
from helios_operator.api import serialize
from helios_operator.api.rows import QualityRow, Row, TimingRow
from helios_operator.api.types import DeploymentSpec
from helios_operator.decide.snapshot import JobKind, JobSpec
from helios_operator.simulate import measurements, profiles
from helios_operator.simulate.profiles import Profiles
from helios_operator.simulate.replay import Clocks
from helios_operator.simulate.truth import MadeUpText
from helios_operator.simulate.world import World

from tests.decide.builders import LIVE, inline, world
from tests.decide.truth import CODE, GENERAL

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCKS = Clocks(BEGAN)
DOMAINS = ("code", "prose")
"""Of the prompts that were profiled, the newest last."""


CONFIDENCE = {"code": 300, "prose": 450}
"""Mean, in thousandths."""


def _confident(row: QualityRow, milli: int) -> QualityRow:
    return replace(row, exits=tuple(replace(each, mean_confidence_milli=milli) for each in row.exits))


@cache
def measured() -> tuple[World, tuple[Row, ...]]:
    """The world that Jobs measured, and what they brought home."""
    made = world(inline(), general=GENERAL, code=CODE)
    made.run(20)
    rows: list[Row] = [row for row in made.rows.values() if isinstance(row, TimingRow)]
    draw = random.Random(3)
    for place, domain in enumerate(DOMAINS):
        digest = f"sha256:{domain}"
        made.sets[digest] = [MadeUpText(domain, draw.random(), draw.random()) for _ in range(48)]
        made.now += timedelta(minutes=place)
        job = JobSpec("q", JobKind.QUALITY, made.spec.candidates, prompts_digest=digest)
        rows += (_confident(row, CONFIDENCE[domain]) for row in measurements.quality_rows(made, job))
    return made, tuple(rows)


def spec(**reassessment: object) -> DeploymentSpec:
    made, _ = measured()
    rules = replace(
        made.spec.reassessment,
        audit_percent=20,
        every_requests=150,
        cooldown=timedelta(seconds=30),
        **reassessment,  # type: ignore[arg-type]
    )
    return replace(made.spec, profiling=replace(made.spec.profiling, prompts=LIVE), reassessment=rules)


def found() -> Profiles:
    made, rows = measured()
    resolved = {c.name: made.resolved(c) for c in made.spec.candidates}
    return profiles.gather(made.spec.candidates, resolved, rows)


def write_profiles(folder: Path) -> Path:
    """As files: HeliosProfiles, and the result of an Inspect Job."""
    made, rows = measured()
    folder.mkdir()
    for row in rows:
        (folder / f"{row.name}.yaml").write_text(yaml.safe_dump(serialize.profile(row)))
    looked = results.Inspection({c.name: made.resolved(c) for c in made.spec.candidates})
    (folder / "inspect.json").write_text(results.to_json(looked))
    return folder


def write_spec(file: Path, **spec: object) -> Path:
    """As a user has it."""
    made, _ = measured()
    candidates = [
        {
            "name": c.name,
            "uri": c.uri,
            "exits": c.exits,
            "exitLayers": list(c.exit_layers),
            "weightDtypes": ["auto"],
            "kvCacheDtypes": ["auto"],
        }
        for c in made.spec.candidates
    ]
    asked = {
        "candidates": candidates,
        "slo": {"minQualityPercent": 90, "optimizationType": "throughput"},
        "workload": {"isl": 64, "osl": 48},
        "limits": {"memoryMiB": made.spec.limits.memory_mib},
        "profiling": {"prompts": {"live": {"maxPrompts": 32, "consent": True}}},
        "reassessment": {"auditPercent": 20, "everyRequests": 150, "cooldown": "30s"},
        **spec,
    }
    obj = {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": "HeliosDeployment",
        "metadata": {"name": "chat"},
        "spec": asked,
    }
    file.write_text(json.dumps(obj))
    return file
