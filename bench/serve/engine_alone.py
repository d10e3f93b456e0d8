"""The engine without a door, under the load that `crowd` puts on a pod's: its processor time a token.

Runs in a process of its own (`bench.load.alone`).
"""

from __future__ import annotations

import random

from helios_contract.limits import Audit, Limits
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig

from bench.load import saturate
from bench.serve.pod import Settings

WARM_UP = 2.0
"""Seconds; no more than are measured."""


def seconds_per_token(settings: Settings, prompt: int, new: int, warm_up: float, seconds: float) -> float:
    host_memory.share_one_heap()
    limits = Limits(
        generation=1,
        candidate="bench",
        model_uri=f"file://{settings.model}",
        max_batch_size=settings.rows,
        max_queue_size=settings.queue,
        audit=Audit(percent=0),
        tokens_per_request=settings.tokens_per_request,
    )
    draw = random.Random(0)
    prompts = [tuple(draw.randrange(3, 256) for _ in range(prompt)) for _ in range(1000)]
    engine = Engine.start(EngineConfig(threads=settings.threads, offline=True), limits)
    try:
        load = saturate(engine, prompts, osl=new, in_flight=settings.rows, warm_up=warm_up, seconds=seconds)
    finally:
        engine.stop()
    return load.cpu_seconds_per_token
