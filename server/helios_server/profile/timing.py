"""A Timing row: how long the engine's steps last at which shape, what memory the model takes, joules per
token.

Called by `command.py`. It runs the engine's own runner on synthetic tokens; the laws that turn the figures
into predictions stand in `helios_server.planning`.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from helios_contract.results import EnergyCost, MemoryFacts, StepTimeFit, Timing, TimingPoint, Timings
from helios_contract.serves import REFERENCE, Precision
from torch import Tensor

from helios_server.engine import host_memory
from helios_server.engine.audit import audit_bytes
from helios_server.engine.heads import Heads, LoadedBundle
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig
from helios_server.engine.memory import accelerator_bytes, allowed_bytes, load_first_layer, measure
from helios_server.engine.runner import Runner
from helios_server.errors import HeliosError, OutOfMemoryBudget
from helios_server.exits.head import BareHead, ExitHead
from helios_server.models.backbone import Backbone
from helios_server.models.config import ModelConfig
from helios_server.planning.fitting import fit
from helios_server.planning.memory import MIB, capacity, limit_for_rows
from helios_server.planning.timing import StepPoint, step_ns
from helios_server.profile.energy import measure_energy
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.pods import hold_what_pods_hold
from helios_server.profile.precisions import Omissions
from helios_server.profile.sweep import EFFORTS, StepDuration, sweep
from helios_server.profile.workload import (
    BATCHES,
    FEW,
    Room,
    Shape,
    plan_step,
    shapes_to_check,
    shapes_to_fit,
)
from helios_server.progress import Progress
from helios_server.telemetry.energy import open_meter

_MAX_ROWS = BATCHES[-1]
_FEWEST_ROWS = 4  # a depth with room for fewer tells too little about batches
_ROW_TOKENS = 64
_MAX_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How to measure. memory_mib: the process's limit, None for all there is; max_context: tokens to be
    served, None for the model's; search: rapid | thorough; watts: of one busy core, where no
    energy counter exists."""

    device: str = "cpu"
    dtype: str | None = None
    memory_mib: int | None = None
    max_context: int | None = None
    search: str = "rapid"
    watts: float | None = None

    def limit_bytes(self) -> int:
        """What may be held: as given, and no more than the container, the machine or the accelerator has."""
        return allowed_bytes(self.memory_mib, torch.device(self.device))


def measure_timings(
    candidates: Sequence[OpenCandidate],
    settings: TimingSettings,
    progress: Progress,
    precisions: Sequence[Precision],
) -> Timing | Timings:
    """Of the backbone that the candidates share, in each precision, with one model in memory at a time. Of
    several, those that memory or a format does not hold, or the device has not, are left out."""
    if len(precisions) == 1:
        return measure_timing(candidates, settings, progress, precisions[0])
    found, omitted = list[Timing](), Omissions(progress)
    for done, precision in enumerate(precisions):
        progress(f"in {precision}")
        try:
            passed = progress.part(done, len(precisions))
            found.append(measure_timing(candidates, settings, progress, precision, passed))
        except HeliosError as error:
            omitted.add(precision, error)
        _give_back(torch.device(settings.device))
    if not found:
        raise omitted.first
    return Timings(tuple(found), omitted.named)


def _give_back(device: torch.device) -> None:
    """What a model held goes back to the system: the next one is measured as if it were the first."""
    gc.collect()
    if device.type == "cpu":
        host_memory.trim()
    else:
        torch.cuda.empty_cache()


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
    shapes = shapes_to_fit(bench.deepest, bench.digests, bench.room)
    unseen = shapes_to_check(bench.deepest, bench.room)
    steps = [bench.step(shape) for shape in (*shapes, *unseen)]
    progress(
        f"{len(shapes)} shapes of a step, up to {bench.deepest} layers and {bench.room.batches()[-1]} rows"
    )
    durations = sweep(steps, EFFORTS[settings.search], passed=passed or progress.part(0, 1))
    points = [_point(shape, each) for shape, each in zip((*shapes, *unseen), durations, strict=True)]
    fitted = fit(points[: len(shapes)])
    missed = [_error_percent(fitted, point) for point in points[len(shapes) :]]
    error = max(fitted.error_percent, *missed)
    progress(f"{durations[0].count} rounds; the fit is {error} % off")
    shown = zip((*shapes, *unseen), durations, strict=True)
    return Timing(
        fit=replace(fitted, error_percent=error),
        memory=bench.facts,
        exit_bytes=bench.exit_bytes,
        audit_bytes=audit_bytes(bench.backbone),
        energy=_energy(shapes, steps, settings, progress),
        points=tuple(_shown(shape, duration) for shape, duration in shown),
        device_memory_bytes=accelerator_bytes(bench.backbone.numerics.device),
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )


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


@dataclass(frozen=True, slots=True)
class HeadSample:
    """One exit head that stands for all of its kind. digest: of its bundle; bundle_bytes: resident, all
    exits."""

    head: ExitHead
    digest: str
    bundle_bytes: int


_BYTE = 60
"""Of integers, of which four are their float32 unit too: 60 times .0115. With other bytes a unit may be so
small that its products are subnormal, over which some processors take a hundred times as long."""


def fill(slab: Tensor) -> None:
    """With keys and values of a usual size: what nobody wrote is, on a CPU, one page of zeros in the nearest
    cache, whatever the context."""
    slab.fill_(1 if slab.is_floating_point() else _BYTE)


class Bench:
    """A backbone in memory as deep as fits, a head of each kind, and a KV pool for the largest step."""

    def __init__(
        self, backbone: Backbone, facts: MemoryFacts, samples: Mapping[str, HeadSample], room: Room
    ) -> None:
        self.backbone = backbone
        self.facts = facts
        self.room = room
        self.samples = samples
        # A head's cost does not depend on the layer that it was trained for: each is put at every depth.
        everywhere = range(1, backbone.num_loaded + 1)
        bundles = [LoadedBundle(s.digest, dict.fromkeys(everywhere, s.head), {}) for s in samples.values()]
        self._heads = Heads(backbone, bundles)
        pages = room.tokens // room.page_tokens
        self._pool = KvPool(backbone.config, backbone.numerics, backbone.num_loaded, pages, room.page_tokens)
        self._runner = Runner(backbone, self._heads, self._pool, "")  # of all shapes: it keeps logits
        for layer in range(self._pool.layers):
            fill(self._pool.slab(layer))

    @classmethod
    def open(
        cls, candidates: Sequence[OpenCandidate], settings: TimingSettings, precision: Precision
    ) -> Bench:
        """Loads one layer to learn what all of them take, then as many as fit."""
        config = EngineConfig(device=settings.device, dtype=settings.dtype, max_context=settings.max_context)
        checkpoint = candidates[0].checkpoint
        beside = hold_what_pods_hold(checkpoint)
        backbone = load_first_layer(checkpoint, config, settings.memory_mib, precision)
        facts = measure(backbone, config)
        del beside
        samples = _sample_heads(candidates, backbone)
        held = sum(sample.head.nbytes for sample in samples.values())
        context = checkpoint.config.context(settings.max_context)
        layers, rows, tokens = _deepest(facts, backbone.config, held, settings.limit_bytes(), context)
        backbone.attach([backbone.load_layer(index) for index in range(1, layers)])
        host_memory.trim()
        room = Room(rows, tokens, config.page_tokens, context, config.step_tokens)
        return cls(backbone, facts, samples, room)

    @property
    def deepest(self) -> int:
        """Layers in memory."""
        return self.backbone.num_loaded

    @property
    def digests(self) -> dict[str, str]:
        """Kind of head -> digest of the bundle that stands for it, the model's own head first."""
        return {BareHead.kind: ""} | {kind: sample.digest for kind, sample in self.samples.items()}

    @property
    def exit_bytes(self) -> dict[str, int]:
        """Kind of head -> resident bytes of a bundle."""
        return {BareHead.kind: 0} | {kind: sample.bundle_bytes for kind, sample in self.samples.items()}

    def step(self, shape: Shape) -> Callable[[], None]:
        """A step of that shape, to be run any number of times."""
        runner = self._runner
        plan = plan_step(shape, self.room.page_tokens, self.backbone.config.vocab_size, seed=shape.rows)
        on_device = self.backbone.numerics.device.type == "cuda"

        def run() -> None:
            runner.digest = shape.digest
            runner.run(plan)
            if on_device:
                torch.cuda.synchronize()

        return run


def _sample_heads(candidates: Sequence[OpenCandidate], backbone: Backbone) -> dict[str, HeadSample]:
    """By kind of head: one of the first bundle of that kind; others cost the same."""
    samples: dict[str, HeadSample] = {}
    for opened in candidates:
        if opened.bundle is not None and opened.head_kind not in samples:
            heads = [opened.bundle.head(layer, backbone) for layer in opened.bundle.layers]
            head = next(head for head in heads if head.kind == opened.head_kind)
            samples[opened.head_kind] = HeadSample(head, opened.exits_digest, sum(h.nbytes for h in heads))
    return samples


def _deepest(
    facts: MemoryFacts, model: ModelConfig, exit_bytes: int, limit_bytes: int, context: int
) -> tuple[int, int, int]:
    """The deepest stretch of layers that fits with a few rows: layers, rows, tokens of KV cache."""
    request = {"tokens_per_request": _ROW_TOKENS, "exit_bytes": exit_bytes}
    for layers in range(model.num_layers, 0, -1):
        fits = capacity(facts, limit_bytes=limit_bytes, layers=layers, max_rows=_MAX_ROWS, **request)
        if fits.rows >= _FEWEST_ROWS:
            return layers, fits.rows, min(_MAX_TOKENS, fits.tokens)
    need = limit_for_rows(facts, layers=1, rows=_FEWEST_ROWS, **request)
    problem = f"timing one layer takes {need // MIB + 1} MiB, {limit_bytes // MIB} are given"
    fix = f"Raise it, or lower the context of {context} tokens (--max-context, limits.maxContextTokens)"
    raise OutOfMemoryBudget("memory-mib", problem, fix)


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
