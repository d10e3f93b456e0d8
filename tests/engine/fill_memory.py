"""Run in a process of its own: serves at a planned capacity with every page written and a prompt under way.

Arguments: checkpoint, layers, MiB that the planner is told, percent of the requests that are audited, the
precision. Prints what was planned and what is held, as JSON, then "survived".
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from helios_contract.serves import Bundle
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig

from tests.engine.helpers import audit_of, limits_for, prompt_of, send
from tests.sizes import LONG

CONTEXT = 2560
BATCHES, PROMPTS = 2, 6 if LONG else 3
"""What audits leave behind shows in the second batch and later."""


def main(checkpoint: str, layers: str, mib: str, audited: str = "0", precision: str = "auto/auto") -> None:
    host_memory.share_one_heap()  # as `helios serve` does
    depth, (weights, kept) = int(layers), precision.split("/")
    limits = limits_for(
        Path(checkpoint),
        layer_budget=depth,
        exit_layers=(depth,),
        memory_mib=int(mib),
        tokens_per_request=512,
        audit=audit_of(int(audited), Bundle("tiny", "", "")),
        weight_dtype=weights,
        kv_cache_dtype=kept,
    )
    engine = Engine.start(EngineConfig(max_context=CONTEXT, threads=1), limits)
    engine.at_boundary(lambda: write_every_page(engine)).result()
    capacity = engine.serving.capacity
    planned = capacity.process_start_bytes + capacity.weight_bytes + capacity.kv_bytes
    held = host_memory.anonymous_bytes() + host_memory.page_table_bytes()
    report = {"planned": planned, "held": held, "tokens": capacity.kv_capacity_tokens}
    print(json.dumps(report), flush=True)
    send(engine, tuple(range(1000, 1000 + CONTEXT - 4)), max_tokens=3, temperature=1.0).result()
    if int(audited):
        for batch in range(1, BATCHES + 1):
            audited_together(engine, batch)
    engine.stop()
    print("survived", flush=True)


def audited_together(engine: Engine, batch: int) -> None:
    """Prompts as long as audits score them, several at once. batch: counted from 1."""
    streams = [send(engine, prompt_of(500, seed), max_tokens=8, ignore_eos=True) for seed in range(PROMPTS)]
    for stream in streams:
        stream.result()
    while len(engine.telemetry().audits) < batch * PROMPTS:
        time.sleep(0.1)


@torch.inference_mode()
def write_every_page(engine: Engine, together: int = 1) -> None:
    """together: pages in one write."""
    pool = engine.serving.pool
    for start in range(0, pool.pages, together):
        for layer in range(pool.layers):
            pool.slab(layer)[start : min(pool.pages, start + together)] = 1


if __name__ == "__main__":
    main(*sys.argv[1:])
