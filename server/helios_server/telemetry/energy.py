"""Joules, from the best source that the machine has, and under its name.

Called by the server (telemetry, metrics) and by the profiler (joules per token). What turns readings of a
counter into joules is pure, so that recorded counters, wrap included, can be replayed. It must not sample by
itself: whoever holds a meter reads it often enough, RAPL at least once per wrap (minutes at full power).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_POWERCAP = Path("/sys/class/powercap")
_JOULES_PER_MICROJOULE = 1e-6
_JOULES_PER_MILLIJOULE = 1e-3


class EnergyMeter(Protocol):
    """source: nvml | rapl | declared."""

    source: str

    def joules(self) -> float:
        """Since the meter was opened."""
        ...


class Accumulator:
    """Joules from a counter that starts anywhere.

    joules_per_unit: of the counter's unit. wraps_after: units after which it begins at 0 again; None for one
    that never wraps, which can only fall when its driver was loaded anew.
    """

    def __init__(self, joules_per_unit: float, wraps_after: int | None = None) -> None:
        self._joules_per_unit = joules_per_unit
        self._wraps_after = wraps_after
        self._last: int | None = None
        self._units = 0

    def update(self, reading: int) -> float:
        """Takes in the counter's reading; returns the joules since the first one."""
        if self._last is not None:
            self._units += self._difference(self._last, reading)
        self._last = reading
        return self._units * self._joules_per_unit

    def _difference(self, last: int, reading: int) -> int:
        if reading >= last:
            return reading - last
        return reading if self._wraps_after is None else reading + self._wraps_after - last


class CounterMeter:
    """The sum of counters: of one GPU, or of every CPU package. `counters` yield readings in the counter's
    unit."""

    def __init__(self, source: str, counters: list[tuple[Callable[[], int], Accumulator]]) -> None:
        self.source = source
        self._counters = counters
        self.joules()

    def joules(self) -> float:
        return sum(accumulator.update(read()) for read, accumulator in self._counters)


class DeclaredMeter:
    """Declared watts of one busy core, times the CPU-seconds that this process has used. An estimate, and
    named so."""

    source = "declared"

    def __init__(self, watts: float, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        self._watts = watts
        self._cpu_seconds = cpu_seconds
        self._start = cpu_seconds()

    def joules(self) -> float:
        return self._watts * (self._cpu_seconds() - self._start)


def open_meter(device: str, watts: float | None = None, powercap: Path = _POWERCAP) -> EnergyMeter | None:
    """The device's own counter where it can be read, else what the user declared, else None.

    device: as torch names it. watts: of one busy core.
    """
    measured = _open_nvml(device) if device.startswith("cuda") else open_rapl(powercap)
    if measured is not None:
        return measured
    return DeclaredMeter(watts) if watts else None


def open_rapl(powercap: Path = _POWERCAP) -> CounterMeter | None:
    """Every CPU package. None where the kernel shows no counters, or shows them to root only (as in most
    containers)."""
    counters: list[tuple[Callable[[], int], Accumulator]] = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            if not (zone / "name").read_text().startswith("package"):
                continue  # a part of a package, or psys, which counts the packages again
            wraps_after = int((zone / "max_energy_range_uj").read_text())
            counters.append(
                (_file_counter(zone / "energy_uj"), Accumulator(_JOULES_PER_MICROJOULE, wraps_after))
            )
        return CounterMeter("rapl", counters) if counters else None
    except (OSError, ValueError):
        return None


def _file_counter(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def _open_nvml(device: str) -> CounterMeter | None:
    """None without the binding, the driver, or a GPU that counts (Volta and later do)."""
    try:
        import pynvml
        import torch  # tells which of the machine's GPUs the device is

        index = torch.device(device).index or 0
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        pynvml.nvmlInit()
    except Exception:  # each of them has its own way of not being there
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return CounterMeter("nvml", [(_nvml_counter(pynvml, handle), Accumulator(_JOULES_PER_MILLIJOULE))])
    except pynvml.NVMLError:
        return None


def _nvml_counter(pynvml: object, handle: object) -> Callable[[], int]:
    read: Callable[[object], int] = pynvml.nvmlDeviceGetTotalEnergyConsumption  # type: ignore[attr-defined]
    return lambda: read(handle)
