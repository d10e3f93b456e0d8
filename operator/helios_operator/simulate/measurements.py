"""What the Jobs of a simulated world measure: the truth, as the rows that they return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from helios_contract import tasks
from helios_contract.results import ExitQuality, Timing
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
from helios_operator.simulate.truth import Model, Text

if TYPE_CHECKING:
    from helios_operator.simulate.world import World


def timings(made: World, spec: JobSpec) -> Iterator[TimingRow]:
    for precision, name in zip(spec.precisions, spec.rows, strict=True):
        found = _timing(made, spec, precision)
        if found and made.times(precision) and not made.unheld(spec.kind, precision):
            wanted = _identity(made, spec, precision)
            assert name == timing_name(wanted), "a Job's rows are named by what it measures"
            yield TimingRow(name=name, identity=wanted, phase=RowPhase.COMPLETE, **vars(found))


def _timing(made: World, spec: JobSpec, precision: Precision) -> Timing | None:
    found = made.model(min(spec.candidates, key=key)).backbone.timing(precision)
    return replace(found, device_memory_bytes=made.device_memory_bytes) if found else None


def _identity(made: World, spec: JobSpec, precision: Precision) -> TimingIdentity:
    first = min(spec.candidates, key=key)
    return TimingIdentity(
        model_uri=first.uri,
        revision=made.resolved(first).revision,
        dtype=made.hardware.dtype,
        head_kinds=spec.head_kinds,
        hardware=made.hardware,
        performance_version=made.performance_version,
        max_context_tokens=spec.max_context_tokens,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


def quality_rows(made: World, spec: JobSpec) -> Iterator[QualityRow]:
    texts = made.sets.get(spec.prompts_digest) or made.given_texts()
    for precision, candidate in product(spec.precisions, spec.candidates):
        if not made.scores(precision) or made.unheld(spec.kind, precision):
            continue
        model = made.model(candidate)
        identity = QualityIdentity(
            candidate.uri,
            made.resolved(candidate).revision,
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
            tokens=sum(text.tokens for text in texts),
            bytes=sum(text.bytes for text in texts),
            prompt_bytes=tuple(text.bytes for text in texts),
            exits=tuple(_exit(model, layer, texts, precision) for layer in layers),
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
            made.resolved(candidate).revision,
            "" if option.layer_budget == model.backbone.layers else model.digest,
            option.layer_budget,
            spec.tasks_digest,
            precision.weight_dtype,
            precision.kv_cache_dtype,
        )
        assert name == tasks_name(identity), "a Job's rows are named by what it asks"
        passes = made.passes(candidate, option.layer_budget, precision)
        yield TasksRow(name, identity, RowPhase.COMPLETE, "", made.now, len(passes), tasks.bits(passes))


def _exit(model: Model, layer: int, texts: Sequence[Text], precision: Precision) -> ExitQuality:
    bits = tuple(text.millibits(model, layer, precision) for text in texts)
    agreement = round(100 * sum(text.agreement(model, layer, precision) for text in texts) / len(texts))
    return ExitQuality(layer, sum(bits), min(100, agreement), 50, 20, 400, bits)
