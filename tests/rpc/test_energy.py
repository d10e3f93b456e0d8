"""Energy meters on recorded counters: what they read, what a wrap does, and under which name it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helios_server.telemetry.energy import Accumulator, CounterMeter, DeclaredMeter, open_meter, open_rapl

RAPL_WRAP = 262_143_328_850
"""max_energy_range_uj of a common package, in microjoules."""


def recorded(*readings: int) -> tuple[Iterator[int], int]:
    return iter(readings), len(readings)


def package(root: Path, name: str, zone: str, energy: int, wrap: int = RAPL_WRAP) -> Path:
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    return folder


def test_rapl_counts_through_a_wrap() -> None:
    accumulator = Accumulator(1e-6, RAPL_WRAP)
    readings = (RAPL_WRAP - 3_000_000, RAPL_WRAP - 1_000_000, 4_000_000, 9_000_000)
    joules = [accumulator.update(reading) for reading in readings]
    assert joules == pytest.approx([0, 2, 7, 12])


def test_rapl_counts_through_many_wraps() -> None:
    accumulator = Accumulator(1e-6, wraps_after=10_000_000)
    total = [accumulator.update(joule * 1_000_000 % 10_000_000) for joule in range(0, 100, 7)]
    assert total[-1] == pytest.approx(98)


def test_nvml_counts_millijoules_from_wherever_the_counter_stands() -> None:
    accumulator = Accumulator(1e-3)
    assert [accumulator.update(reading) for reading in (8_123_456, 8_123_956, 8_133_456)] == [0, 0.5, 10]


def test_nvml_goes_on_when_the_driver_was_loaded_anew() -> None:
    accumulator = Accumulator(1e-3)
    assert [accumulator.update(reading) for reading in (5_000, 6_000, 500, 700)] == [0, 1, 1.5, 1.7]


def test_a_meter_sums_its_counters_and_starts_at_zero() -> None:
    first, second = iter((100, 150, 170)), iter((90, 5, 10))
    meter = CounterMeter(
        "rapl",
        [(lambda: next(first), Accumulator(1.0, 1000)), (lambda: next(second), Accumulator(1.0, 100))],
    )
    assert [meter.joules(), meter.joules()] == [50 + 15, 70 + 20]


def test_rapl_reads_packages_and_neither_their_parts_nor_the_platform(tmp_path: Path) -> None:
    first = package(tmp_path, "package-0", "intel-rapl:0", 1_000_000)
    second = package(tmp_path, "package-1", "intel-rapl:1", RAPL_WRAP - 1_000_000)
    package(tmp_path, "core", "intel-rapl:0:0", 7)
    psys = package(tmp_path, "psys", "intel-rapl:2", 9)
    meter = open_rapl(tmp_path)
    assert meter is not None
    (first / "energy_uj").write_text("3000000\n")
    (second / "energy_uj").write_text("500000\n")
    (psys / "energy_uj").write_text("999999999\n")
    assert (meter.source, meter.joules()) == ("rapl", pytest.approx(2 + 1.5))


@pytest.mark.parametrize("damage", ["", "many"])
def test_unreadable_rapl_falls_back_to_what_is_declared(tmp_path: Path, damage: str) -> None:
    folder = package(tmp_path, "package-0", "intel-rapl:0", 0)
    (folder / "energy_uj").write_text(damage)
    meter = open_meter("cpu", watts=15, powercap=tmp_path)
    assert meter is not None
    assert meter.source == "declared"
    assert open_meter("cpu", watts=None, powercap=tmp_path) is None


def test_declared_watts_count_busy_seconds() -> None:
    seconds = iter((10.0, 12.5))
    assert DeclaredMeter(20, cpu_seconds=lambda: next(seconds)).joules() == 50


def test_measured_comes_before_declared(tmp_path: Path) -> None:
    package(tmp_path, "package-0", "intel-rapl:0", 5)
    meter = open_meter("cpu", watts=15, powercap=tmp_path)
    assert meter is not None
    assert meter.source == "rapl"
