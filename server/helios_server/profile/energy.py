"""Joules per token of decoding, from whatever meter the machine has.

Called by `timing.py`. Steps are repeated for long enough that a counter's coarse steps do not matter. Prompt
tokens are not counted: energy is told per token generated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from helios_contract.results import EnergyCost, EnergyPoint

from helios_server.telemetry.energy import EnergyMeter

_IDLE_SECONDS, _BUSY_SECONDS = 0.5, 0.4


def measure_energy(meter: EnergyMeter, steps: Mapping[tuple[int, int], Callable[[], None]]) -> EnergyCost:
    """steps: (layers, rows) -> a decoding step."""
    idle = _joules(meter, lambda: time.sleep(_IDLE_SECONDS)) / _IDLE_SECONDS
    points = (
        EnergyPoint(layers, rows, round(_per_step(meter, step) / rows * 1e6))
        for (layers, rows), step in sorted(steps.items())
    )
    return EnergyCost(meter.source, tuple(points), round(1000 * idle))


def _per_step(meter: EnergyMeter, step: Callable[[], None]) -> float:
    count = 0

    def busy() -> None:
        nonlocal count
        until = time.monotonic() + _BUSY_SECONDS
        while count == 0 or time.monotonic() < until:
            step()
            count += 1

    joules = _joules(meter, busy)
    return joules / count


def _joules(meter: EnergyMeter, work: Callable[[], None]) -> float:
    before = meter.joules()
    work()
    return meter.joules() - before
