"""Run in a process of its own: changes the precision of what serves, back and forth, with every page written
and streams under way.

Arguments: checkpoint, MiB that the planner is told, then precisions as `weights/kv`, the first one to start
with. Prints a line of JSON for each that served, then "survived".
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from helios_contract.limits import Limits
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig

from tests.engine.fill_memory import write_every_page
from tests.engine.helpers import audit_of, limits_for, prompt_of, send

LONG = {"max_tokens": 400, "ignore_eos": True}


def main(checkpoint: str, mib: str, *precisions: str) -> None:
    host_memory.share_one_heap()  # as `helios serve` does
    plain = limits_for(Path(checkpoint), memory_mib=int(mib), tokens_per_request=512, audit=audit_of(100))
    first, *others = (_in(plain, precision, n) for n, precision in enumerate(precisions, start=1))
    engine = Engine.start(EngineConfig(max_context=2048, threads=1), first)
    report(engine, 0.0)
    streams = [send(engine, prompt_of(30, seed), **LONG) for seed in range(3)]
    for limits in others:
        streams[0].wait_for(5 * limits.generation)
        outcome = engine.set_limits(limits).result(240)
        assert outcome.reprefilled, outcome
        report(engine, outcome.seconds)
    for stream in streams:
        engine.abort(stream.request_id)
    assert len(streams[0].result().spans) == len(precisions)
    engine.stop()
    print("survived", flush=True)


def _in(limits: Limits, precision: str, generation: int) -> Limits:
    weight_dtype, kv_cache_dtype = precision.split("/")
    return replace(limits, generation=generation, weight_dtype=weight_dtype, kv_cache_dtype=kv_cache_dtype)


def report(engine: Engine, seconds: float) -> None:
    """Every page is written first, before any stream uses one again: then what was planned is held."""
    engine.at_boundary(lambda: write_every_page(engine)).result()
    capacity = engine.serving.capacity
    held = host_memory.anonymous_bytes() + host_memory.page_table_bytes()
    planned = capacity.process_start_bytes + capacity.weight_bytes + capacity.kv_bytes
    told = {"precision": str(engine.serving.limits.precision), "tokens": capacity.kv_capacity_tokens}
    print(json.dumps(told | {"planned": planned, "held": held, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
