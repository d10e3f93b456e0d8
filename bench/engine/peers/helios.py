"""Ours: the engine as a pod runs it, without the doors, in the environment of the bench."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.engine.adapter import TORCH_AVX2, Adapter, Ids, Peer, Setting, Variant
from bench.engine.parts import median_step, watched

if TYPE_CHECKING:
    from helios_server.engine.engine import Engine
    from helios_server.engine.request import Event, FinishedEvent

_MEMORY_MIB = 6144
_AUDIT_SECONDS = 120.0
_QUANTISED = ("int8", "int4")  # weights; the rest in the format that the machine names


class Helios:
    def __init__(self, setting: Setting) -> None:
        from helios_contract.limits import Audit, Limits
        from helios_server.engine.engine import Engine
        from helios_server.engine.limits import EngineConfig

        fields = EngineConfig.__dataclass_fields__  # a release without the switch finds nothing again anyway
        off: dict[str, Any] = {"prefix_caching": False} if "prefix_caching" in fields else {}
        quantised = setting.variant in _QUANTISED
        limits = Limits(
            generation=1,
            candidate="bench",
            model_uri=f"file://{setting.model}",
            max_batch_size=setting.rows,
            max_queue_size=1024,
            memory_mib=_MEMORY_MIB,
            tokens_per_request=setting.tokens,
            audit=Audit(percent=0),
            **({"weight_dtype": setting.variant} if quantised else {}),
        )
        dtype = None if quantised else setting.variant
        config = EngineConfig(dtype=dtype, threads=setting.threads, **off)
        self.engine: Engine = Engine.start(config, limits)
        self._variant = setting.variant
        self._limits = limits
        self._numbers = itertools.count()
        self.numerics = f"{setting.variant}; {_kernels()}"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        return [list(answer.output_ids) for answer in self._answers(prompts, new)]

    def score(self, windows: Sequence[Ids]) -> float:
        """By the engine's own audit, which starts from what its prefill computed."""
        from helios_contract.limits import Audit

        audited = replace(self._limits, generation=self._limits.generation + 1, audit=Audit(percent=100))
        self.engine.set_limits(audited).result()
        millibits = 0
        for window in windows:  # one at a time: the engine holds the states of so many tokens only
            [answer] = self._answers([window], 1)
            millibits += self._millibits(answer.ordinal)
        self._limits = replace(self._limits, generation=audited.generation + 1)
        self.engine.set_limits(self._limits).result()
        return millibits / 1000

    def parts(self, prompts: Sequence[Ids], new: int) -> Mapping[str, float]:
        """Where a step's time goes, in seconds, with every row decoding: the median step's, by part."""
        with watched(len(prompts)) as steps:
            self._answers(prompts, new)
        return median_step(steps)

    def bare(self, blocks: int) -> Mapping[str, float]:
        """Bytes a second that products of this format read (`bare.py`); none where torch computes them."""
        from helios_server.native.library import library
        from helios_server.native.matrix import FORMATS

        from bench.engine.bare import bare

        kernels = library()
        return bare(kernels, self._variant, blocks) if kernels and self._variant in FORMATS else {}

    def _answers(self, prompts: Sequence[Ids], new: int) -> list[FinishedEvent]:
        from helios_server.engine.request import FinishedEvent, GenerationRequest, TokensEvent
        from helios_server.engine.sampling import SamplingParams

        sampling = SamplingParams(max_tokens=new, ignore_eos=True)
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        asked = [f"bench-{next(self._numbers)}" for _ in prompts]
        for name, prompt in zip(asked, prompts, strict=True):
            self.engine.submit(GenerationRequest(name, tuple(prompt), sampling), events.put)
        answers: dict[str, FinishedEvent] = {}
        while len(answers) < len(asked):
            event = events.get()
            if isinstance(event, FinishedEvent):
                answers[event.request_id] = event
            elif not isinstance(event, TokensEvent):
                raise event.error
        return [answers[name] for name in asked]

    def _millibits(self, ordinal: int) -> int:
        end = time.monotonic() + _AUDIT_SECONDS
        while time.monotonic() < end:
            seen = self.engine.telemetry()
            for row in seen.audits:
                if row.request == ordinal:
                    return row.own_full(seen.capacity.total_layers)
            time.sleep(0.01)
        raise RuntimeError(f"the audit of a prompt did not come within {_AUDIT_SECONDS:.0f} s")


def _kernels() -> str:
    """Which instruction set multiplies."""
    import torch

    try:
        from helios_server.native.library import library
    except ImportError:
        return f"torch on {torch.backends.cpu.get_cpu_capability()}"
    found = library()
    return f"kernels of its own, {found.isa}" if found else "torch, its own kernels are off or not built"


def _open(setting: Setting) -> Adapter:
    return Helios(setting)


PEER = Peer(
    title="HELIOS",
    variants={"float16": Variant(16), "bfloat16": Variant(16), "int8": Variant(8)},
    open=_open,
    pinned={"avx2": TORCH_AVX2 | {"HELIOS_NATIVE": "avx2"}},
)
