"""What this machine offers to pods: cores, memory under the container's own limit, an accelerator if there
is one.

Called once by the runtime at its start. It must not import torch: what the server will do with the device
follows from the device's name alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helios_server.native.build import library_file

from helios_operator.decide.snapshot import Hardware

_MIB = 1024 * 1024
_TILES = {"amx_tile", "amx_bf16"}
_PAIRS = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"}
"""Flags of a processor on which the server's kernels multiply bfloat16 as it is."""
_INTEL = "GenuineIntel"
"""On whose processors pairs are slower than float16: the server takes them where they are asked for."""
_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")
_UNKNOWN = ("cuda", 0)
"""A device that torch drives and NVML does not see."""


def detect(device: str = "auto", dtype: str | None = None) -> tuple[str, Hardware]:
    """The device to use ("cpu" or "cuda") and what it offers. `device` auto: an accelerator that the server
    can use."""
    cards = _accelerators()
    if device == "auto":
        device = "cuda" if cards and _torch_has_cuda() else "cpu"
    used = (cards or [_UNKNOWN]) if device == "cuda" else []
    hardware = Hardware(
        accelerator=used[0][0] if used else None,
        accelerators=len(used),
        memory_mib=used[0][1] if used else memory_mib(),
        cpu=cpu_name(),
        cores=cores(),
        dtype=dtype or default_dtype(device),
    )
    return device, hardware


def default_dtype(device: str, cpuinfo: Path = _CPUINFO) -> str:
    """What `auto` comes to in a pod here, so that a row of Timing can be named before one has run: bfloat16
    on an accelerator, and where the server's kernels are there and multiply it; else float16."""
    if device != "cpu":
        return "bfloat16"
    said = os.environ.get("HELIOS_NATIVE", "")
    about = cpuinfo.read_text() if cpuinfo.exists() else ""
    has, is_intels = set(_said_of(about, "flags").split()), _said_of(about, "vendor_id") == _INTEL
    tiles = has >= _TILES and said in ("", "amx")
    pairs = has >= _PAIRS and (said == "avx512_bf16" or (not said and not is_intels))
    return "bfloat16" if (tiles or pairs) and library_file().exists() else "float16"


def memory_mib(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Physical memory, or the container's limit where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if meminfo.exists() and (found := re.search(r"MemTotal:\s+(\d+) kB", meminfo.read_text())):
        total = int(found[1]) * 1024
    limits = [_number(cgroup / "memory.max"), _number(cgroup / "memory" / "memory.limit_in_bytes")]
    return min([total, *(limit for limit in limits if limit)]) // _MIB


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, or the container's quota where that is less; at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup / "cpu.max"
    if quota.exists():
        share, _, period = quota.read_text().strip().partition(" ")
        if share.isdigit():
            usable = min(usable, -(-int(share) // int(period or "100000")))
    return max(1, usable)


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's own name, so that timings of another machine are not taken for this one's."""
    name = _said_of(cpuinfo.read_text(), "model name") if cpuinfo.exists() else ""
    return name or platform.processor() or platform.machine()


def _said_of(cpuinfo: str, what: str) -> str:
    """Of the first processor; "": nothing."""
    found = re.search(rf"^{what}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else ""


def _accelerators() -> list[tuple[str, int]]:
    """Name and memory in MiB of each device that NVML sees; none without the library or the driver."""
    try:
        import pynvml  # optional: without it there is no accelerator to be used
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return reported(pynvml)
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def reported(nvml: Any) -> list[tuple[str, int]]:
    """The same, of an NVML that is open. A card that is cut is its slices: a process sees one of them, and
    nothing of the card."""
    cards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    return [
        (_text(nvml.nvmlDeviceGetName(part)), nvml.nvmlDeviceGetMemoryInfo(part).total // _MIB)
        for card in cards
        for part in _parts(nvml, card)
    ]


def _parts(nvml: Any, card: Any) -> list[Any]:
    try:
        is_cut = nvml.nvmlDeviceGetMigMode(card)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # most cards cannot be cut
        return [card]
    return list(_slices(nvml, card)) if is_cut else [card]


def _slices(nvml: Any, card: Any) -> Iterator[Any]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        with contextlib.suppress(nvml.NVMLError):  # there is none of this number
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)


def _torch_has_cuda() -> bool:
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def _number(path: Path) -> int | None:
    """A cgroup's limit in bytes; None when there is no such file or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
