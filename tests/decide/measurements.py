"""What the Jobs of a simulated world measure: the truth, as the rows that they return."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from helios_contract import tasks
from helios_contract.results import ExitQuality
from helios_contract.serves import Precision
from helios_operator.api.identity import quality_name, tasks_name, timing_name
from helios_operator.api.rows import (
    QualityIdentity,
    QualityRow,
    RowPhase,
    TasksIdentity,
    TasksRow,
    TimingIdentity,
    TimingRow,
)
from helios_operator.decide.facts.candidates import key
from helios_operator.decide.snapshot import JobSpec

from tests.decide.pods import Text
from tests.decide.truth import AUDIT_BYTES, EXIT_BYTES, Model

if TYPE_CHECKING:
    from tests.decide.world import World


def timings(made: World, spec: JobSpec) -> Iterator[TimingRow]:
    for precision, name in zip(spec.precisions, spec.rows, strict=True):
        if made.times(precision) and not made.unheld(spec.kind, precision):
            yield _timing(made, spec, precision, name)


def _timing(made: World, spec: JobSpec, precision: Precision, name: str) -> TimingRow:
    first = min(spec.candidates, key=key)
    backbone = made.model(first).backbone
    wanted = TimingIdentity(first.uri, "rev1", "float16", spec.head_kinds, made.hardware, 1)
    wanted = replace(
        wanted,
        max_context_tokens=spec.max_context_tokens,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )
    assert name == timing_name(wanted), "a Job's rows are named by what it measures"
    return TimingRow(
        name=name,
        identity=wanted,
        phase=RowPhase.COMPLETE,
        fit=backbone.fit(precision),
        memory=backbone.memory(precision),
        exit_bytes={"mlp": EXIT_BYTES, "affine": EXIT_BYTES // 3},
        audit_bytes=AUDIT_BYTES,
        device_memory_bytes=made.device_memory_bytes,
        energy=backbone.energy(),
    )


def quality_rows(made: World, spec: JobSpec) -> Iterator[QualityRow]:
    texts = made.sets.get(spec.prompts_digest) or _inline_texts(made)
    for precision, candidate in product(spec.precisions, spec.candidates):
        if not made.scores(precision) or made.unheld(spec.kind, precision):
            continue
        model = made.model(candidate)
        identity = QualityIdentity(
            candidate.uri,
            "rev1",
            model.digest,
            spec.prompts_digest,
            precision.weight_dtype,
            precision.kv_cache_dtype,
        )
        layers = (*(k for k in model.exits if k < model.backbone.layers), model.backbone.layers)
        yield QualityRow(
            name=quality_name(identity),
            identity=identity,
            phase=RowPhase.COMPLETE,
            completed=made.now,
            prompts=len(texts),
            tokens=60 * len(texts),
            bytes=240 * len(texts),
            prompt_bytes=tuple(240 for _ in texts),
            exits=tuple(_exit(made, model, layer, texts, precision) for layer in layers),
        )


def task_rows(made: World, spec: JobSpec) -> Iterator[TasksRow]:
    candidates = {candidate.name: candidate for candidate in spec.candidates}
    for option, name in zip(spec.options, spec.rows, strict=True):
        candidate = candidates[option.candidate]
        model, precision = made.model(candidate), option.precision
        if made.unheld(spec.kind, precision):
            continue
        identity = TasksIdentity(
            candidate.uri,
            "rev1",
            "" if option.layer_budget == model.backbone.layers else model.digest,
            option.layer_budget,
            spec.tasks_digest,
            precision.weight_dtype,
            precision.kv_cache_dtype,
        )
        assert name == tasks_name(identity), "a Job's rows are named by what it asks"
        passes = made.passes(candidate, option.layer_budget, precision)
        yield TasksRow(name, identity, RowPhase.COMPLETE, "", made.now, len(passes), tasks.bits(passes))


def _exit(made: World, model: Model, layer: int, texts: list[Text], precision: Precision) -> ExitQuality:
    bits = tuple(text.millibits(model, layer, precision) for text in texts)
    domain = texts[0].domain
    kept = model.own_quality(layer, domain) * model.kept(precision, domain)
    agreement = round(100 * (0.3 + 0.7 * kept**3))
    return ExitQuality(layer, sum(bits), min(100, agreement), 50, 20, 400, bits)


def _inline_texts(made: World) -> list[Text]:
    """Inline prompts are written "domain" once per prompt."""
    seeds = random.Random(7)
    return [Text(domain, seeds.random(), seeds.random()) for domain in made.spec.profiling.prompts.inline]
