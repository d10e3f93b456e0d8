"""A Timing row: how long the engine's steps last at which shape, what memory the model takes, joules per
token.

Called by `command.py`. It runs the engine's own runner on synthetic tokens; the laws that turn the figures
into predictions stand in `helios_server.planning`. Several precisions are timed in turns, for they are to be
compared: one after the other, the machine would be another by then.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from helios_contract.results import EnergyCost, StepTimeFit, Timing, TimingPoint, Timings
from helios_contract.serves import REFERENCE, Precision

from helios_server.engine import host_memory
from helios_server.engine.audit import audit_bytes
from helios_server.engine.memory import accelerator_bytes
from helios_server.errors import HeliosError
from helios_server.planning.fitting import fit
from helios_server.planning.timing import StepPoint, step_ns
from helios_server.profile.energy import measure_energy
from helios_server.profile.extent import Extent, Outline, alone, together
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.precisions import Omissions
from helios_server.profile.step_bench import Bench, outline_of
from helios_server.profile.sweep import EFFORTS, StepDuration, sweep
from helios_server.profile.timing_settings import TimingSettings
from helios_server.profile.workload import FEW, Shape, shapes_to_check, shapes_to_fit
from helios_server.progress import Progress
from helios_server.telemetry.energy import open_meter


def measure_timings(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    progress: Progress,
    precisions: Sequence[Precision],
) -> Timing | Timings:
    """Of the backbone that the candidates share, in each precision. Of several, those that memory or a format
    does not hold, or the device has not, are left out."""
    if len(precisions) == 1:
        return measure_timing(candidates, settings, progress, precisions[0])
    omitted = Omissions(progress)
    outlines = list(_outlines(candidates, settings, precisions, omitted))
    shared = together(outlines, settings.limit_bytes())
    if shared is None:
        left = [outline.precision for outline in outlines]
        found = _one_by_one(candidates, settings, progress, left, omitted)
    else:
        found = _in_turns(candidates, settings, progress, zip(outlines, shared, strict=True), omitted)
    if not found:
        raise omitted.first
    return Timings(tuple(found), omitted.named)


def measure_timing(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    progress: Progress,
    precision: Precision = REFERENCE,
    passed: Callable[[float], None] | None = None,
) -> Timing:
    """Of the backbone that the candidates share, in one precision. passed: is told which share of this is
    done, 0 to 1; None: this is the whole of the work."""
    bench = Bench.open(candidates, settings, precision)
    return _timed([bench], settings, progress, passed or progress.part(0, 1))[0]


def _outlines(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    precisions: Sequence[Precision],
    omitted: Omissions,
) -> Iterator[Outline]:
    """Each measured as if it were the first."""
    for precision in precisions:
        try:
            outline = outline_of(candidates, settings, precision)
            alone(outline, settings.limit_bytes())  # what does not fit by itself is left out at once
            yield outline
        except HeliosError as error:
            omitted.add(precision, error)
        _give_back(torch.device(settings.device))


def _in_turns(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    progress: Progress,
    extents: Iterable[tuple[Outline, Extent]],
    omitted: Omissions,
) -> list[Timing]:
    benches = list[Bench]()
    for outline, extent in extents:
        progress(f"in {outline.precision}")
        try:
            benches.append(Bench.beside_others(candidates, settings, outline, extent))
        except HeliosError as error:
            omitted.add(outline.precision, error)
    return _timed(benches, settings, progress, progress.part(0, 1)) if benches else []


def _one_by_one(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    progress: Progress,
    precisions: Sequence[Precision],
    omitted: Omissions,
) -> list[Timing]:
    """With one model in memory at a time: there is no room for more."""
    found = list[Timing]()
    for done, precision in enumerate(precisions):
        progress(f"in {precision}")
        try:
            passed = progress.part(done, len(precisions))
            found.append(measure_timing(candidates, settings, progress, precision, passed))
        except HeliosError as error:
            omitted.add(precision, error)
        _give_back(torch.device(settings.device))
    return found


def _give_back(device: torch.device) -> None:
    """What a model held goes back to the system: the next one is measured as if it were the first."""
    gc.collect()
    if device.type == "cpu":
        host_memory.trim()
    else:
        torch.cuda.empty_cache()


class _Course:
    """The steps that a bench is timed at: those of the fit first, then those that it has not seen."""

    def __init__(self, bench: Bench) -> None:
        fitted = shapes_to_fit(bench.deepest, bench.digests, bench.room)
        self.bench = bench
        self.fitted = len(fitted)
        self.shapes = (*fitted, *shapes_to_check(bench.deepest, bench.room))
        self.steps = [bench.step(shape) for shape in self.shapes]

    def __str__(self) -> str:
        rows = self.bench.room.batches()[-1]
        return f"{self.fitted} shapes of a step, up to {self.bench.deepest} layers and {rows} rows"


def _timed(
    benches: Sequence[Bench],
    settings: TimingSettings,
    progress: Progress,
    passed: Callable[[float], None],
) -> list[Timing]:
    """A round takes each of them in turn. They have one error of the law, which is the same on the same
    machine, the largest: else chance in a few steps that check it would decide between them."""
    courses = [_Course(bench) for bench in benches]
    for course in courses:
        progress(str(course))
    durations = sweep([course.steps for course in courses], EFFORTS[settings.search], passed=passed)
    rows = [_row(*each, settings, progress) for each in zip(courses, durations, strict=True)]
    error = max(fitted.error_percent for _, fitted in rows)
    return [replace(row, fit=replace(fitted, error_percent=error)) for row, fitted in rows]


def _row(
    course: _Course, durations: Sequence[StepDuration], settings: TimingSettings, progress: Progress
) -> tuple[Timing, StepTimeFit]:
    """With its fit."""
    bench = course.bench
    points = [_point(shape, each) for shape, each in zip(course.shapes, durations, strict=True)]
    law = fit(points[: course.fitted])
    missed = [_error_percent(law, point) for point in points[course.fitted :]]
    fitted = replace(law, error_percent=max(law.error_percent, *missed))
    progress(f"{durations[0].count} rounds; the fit is {fitted.error_percent} % off")
    shown = zip(course.shapes, durations, strict=True)
    row = Timing(
        fit=fitted,
        memory=bench.facts,
        exit_bytes=bench.exit_bytes,
        audit_bytes=audit_bytes(bench.backbone),
        energy=_energy(course.shapes[: course.fitted], course.steps, settings, progress),
        points=tuple(_shown(shape, duration) for shape, duration in shown),
        device_memory_bytes=accelerator_bytes(bench.backbone.numerics.device),
        weight_dtype=bench.precision.weight_dtype,
        kv_cache_dtype=bench.precision.kv_cache_dtype,
    )
    return row, fitted


def _energy(
    shapes: Sequence[Shape], steps: Sequence[Callable[[], None]], settings: TimingSettings, progress: Progress
) -> EnergyCost | None:
    meter = open_meter(settings.device, settings.watts)
    if meter is None:
        return None
    progress(f"energy by {meter.source}")
    deepest = max(shape.layers for shape in shapes)
    pairs = reversed(
        list(zip(shapes, steps, strict=False))
    )  # of those alike the first, whose context is short
    decoding = {shape.rows: step for shape, step in pairs if shape.layers == deepest and not shape.prefill}
    few = {min(decoding, key=lambda rows: abs(rows - wanted)) for wanted in FEW}
    return measure_energy(meter, {(deepest, rows): decoding[rows] for rows in few})


def _point(shape: Shape, duration: StepDuration) -> StepPoint:
    return StepPoint(
        layers=shape.layers,
        rows=shape.rows,
        kv_tokens=shape.kv_tokens,
        sampled=shape.decoding,
        head_kind=shape.head_kind,
        step_ns=duration.quiet_ns,
    )


def _error_percent(fitted: StepTimeFit, point: StepPoint) -> int:
    """How far the fit is from a step that it has not seen."""
    predicted = step_ns(
        fitted,
        layers=point.layers,
        rows=point.rows,
        kv_tokens=point.kv_tokens,
        sampled=point.sampled,
        head_kind=point.head_kind,
    )
    return math.ceil(100 * abs(predicted / point.step_ns - 1))


def _shown(shape: Shape, duration: StepDuration) -> TimingPoint:
    return TimingPoint(
        layer_budget=shape.layers,
        rows=shape.rows,
        kv_tokens=shape.kv_tokens,
        sampled=shape.decoding,
        head_kind=shape.head_kind,
        step_p50_us=round(duration.p50_ns / 1000),
        step_p95_us=round(duration.p95_ns / 1000),
    )
