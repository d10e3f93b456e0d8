"""What is measured in processes of their own: facts of memory, quality, and a load on the engine.

Each function runs in a fresh process (`bench.load.alone`), as a serving process does: what the one before
left behind counts for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import helios_server.serve  # noqa: F401  (what a serving process imports: it counts against the limit)
import torch
from helios_contract.results import MemoryFacts
from helios_contract.serves import Precision
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.serving import load_model
from helios_server.errors import OutOfMemoryBudget
from helios_server.models.cache import cache_root
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile.exits import Texts
from helios_server.profile.quality import QualitySettings, score_texts
from helios_server.telemetry.energy import open_meter

from bench.engine.texts import text
from bench.frontier.subject import Subject
from bench.load import saturate


@dataclass(frozen=True)
class Held:
    """exit_bytes: of the bundle that every depth below full holds."""

    facts: MemoryFacts
    exit_bytes: int


def held(subject: Subject, precision: Precision) -> Held:
    """What the law needs to know of the model in one precision."""
    host_memory.share_one_heap()
    shallowest = subject.limits(subject.depths[-1], precision, 0)
    loaded = load_model(EngineConfig(dtype=subject.dtype, volumes=cache_root()), shallowest)
    return Held(loaded.model.facts, loaded.heads.nbytes)


@dataclass(frozen=True)
class Served:
    """planned_rows, planned_tokens: what the process said that it has room for, 0 where it refused to start;
    the rest as it was under load, joules_per_token None where nothing measures it."""

    planned_rows: int
    planned_tokens: int
    batch_reached: int = 0
    tokens_per_second: float = 0.0
    joules_per_token: float | None = None
    energy_source: str = ""


def serve(
    subject: Subject,
    layers: int,
    precision: Precision,
    memory_mib: int,
    prompts: Sequence[tuple[int, ...]],
    warm_up: float,
    seconds: float,
    watts: float | None,
) -> Served:
    """Saturates the engine with requests of one length; without seconds it only starts."""
    host_memory.share_one_heap()
    limits = subject.limits(layers, precision, memory_mib)
    config = EngineConfig(dtype=subject.dtype, volumes=cache_root())
    try:
        engine = Engine.start(config, limits)
    except OutOfMemoryBudget:
        return Served(0, 0)
    try:
        planned = engine.load()
        rows, tokens = planned.max_batch_size, planned.kv_capacity_tokens
        if not seconds:
            return Served(rows, tokens)
        meter = open_meter("cpu", watts)
        load = saturate(
            engine,
            prompts,
            osl=subject.osl,
            in_flight=2 * rows,
            warm_up=warm_up,
            seconds=seconds,
            rows=min(rows, reachable(subject, config.step_tokens)),
            meter=meter,
        )
        source = meter.source if meter else ""
        return Served(rows, tokens, load.rows, load.tokens_per_second, load.joules_per_token, source)
    finally:
        engine.stop()


def reachable(subject: Subject, step_tokens: int) -> int:
    """Rows that run at once for certain, however many there is room for: prompts that come in share a step's
    tokens with rows that decode. Whoever waits for more waits in vain."""
    return max(1, int(0.75 * step_tokens / (1 + subject.isl / subject.osl)))


@dataclass(frozen=True)
class Scored:
    """millibits: of each window; agreement: of all tokens, 0 to 1, with full depth as published."""

    millibits: tuple[int, ...]
    agreement: float


def score(subject: Subject, domain: str, windows: int, tokens: int) -> Mapping[tuple[int, Precision], Scored]:
    """By layers and precision: one teacher-forced pass for each precision over the same unseen text, in
    windows. The first precision is the reference."""
    opened = subject.opened
    checkpoint = opened[0].checkpoint
    tokenizer = Tokenizer.open(checkpoint.path)
    read = text(domain, tokenizer, windows, tokens)
    texts = Texts(tuple(torch.tensor(ids, dtype=torch.int64) for ids in read.windows), (1,) * windows)
    settings = QualitySettings(dtype=subject.dtype, max_context=tokens)
    found, reference = dict[tuple[int, Precision], Scored](), None
    for precision in subject.precisions:
        with torch.inference_mode():
            measured = score_texts(opened, tokenizer, texts, settings, lambda _: None, precision, reference)
        reference = measured.top if reference is None else reference
        for exit_ in measured.exits[subject.candidate.name]:
            found[exit_.layer, precision] = Scored(exit_.prompt_millibits, exit_.agreement)
    return found
