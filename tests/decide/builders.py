"""Specs and worlds that the tests begin with, in as few words as possible."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from datetime import timedelta

from helios_operator.api.types import (
    DeploymentSpec,
    LimitsSpec,
    LivePrompts,
    Objective,
    Profiling,
    Prompts,
    Reassessment,
    Rollout,
    Slo,
    WorkloadSpec,
)
from helios_operator.decide.facts.candidates import key

from tests.decide.truth import BIG, Model, candidate, memory_for
from tests.decide.world import LISTENERS, START, World

LIVE = Prompts(live=LivePrompts(32, True))


def inline(domain: str = "prose", prompts: int = 48) -> Prompts:
    return Prompts(inline=(domain,) * prompts)


def spec(prompts: Prompts = LIVE, min_quality: int | None = 90, **models: Model) -> DeploymentSpec:
    """Like the demo's: throughput under a quality, quick reassessments."""
    bundles = len({model.digest for model in models.values() if model.digest})
    return DeploymentSpec(
        model_name="chat",
        candidates=tuple(candidate(name, model) for name, model in models.items()),
        slo=Slo(min_quality_percent=min_quality, optimization_type=Objective.THROUGHPUT),
        workload=WorkloadSpec(isl=64, osl=48),
        limits=LimitsSpec(memory_mib=memory_for(BIG, rows=4, bundles=bundles)),
        profiling=Profiling(prompts=prompts),
        reassessment=Reassessment(
            audit_percent=50, cooldown=timedelta(seconds=10), every_requests=60, interval=timedelta(hours=6)
        ),
        rollout=Rollout(scale_down_delay_seconds=1),
    )


def world(prompts: Prompts = LIVE, min_quality: int | None = 90, seed: int = 0, **models: Model) -> World:
    wanted = spec(prompts, min_quality, **models)
    truth = {key(c): models[c.name] for c in wanted.candidates}
    return World(wanted, truth, seed=seed)


def selected(made: World, domain: str = "prose") -> World:
    """Started, served the domain until the first selection is made and in place.

    Most tests begin so: worlds that are alike get there once, and the others as copies of it."""
    if not _is_ordinary(made):
        return _begun(made, domain)
    alike = (repr(made), repr(made.deployment), domain)
    if alike not in _BEGUN:
        _BEGUN[alike] = _begun(deepcopy(made), domain)
    there = _BEGUN[alike]
    made.__dict__.update(deepcopy(there.__dict__, {id(there): made}))
    return made


_BEGUN: dict[tuple[str, ...], World] = {}
_KNOBS = tuple(field.name for field in fields(World) if callable(field.default))


def _is_ordinary(made: World) -> bool:
    """Nobody watches it, nothing in it is a test's own code, and it has not begun."""
    usual = all(vars(made)[name] is getattr(World, name) for name in _KNOBS)
    return usual and not made.watch and not LISTENERS and made.now == START


def _begun(made: World, domain: str) -> World:
    made.run(20)
    for _ in range(30):
        if made.status.reassessment.last_time and not made.status.target and len(made.revisions) == 1:
            break
        made.serve(8, domain)
    return made
