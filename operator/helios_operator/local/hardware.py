"""What this machine offers to pods: cores, memory under the container's own limit, an accelerator if there
is one.

Called once by the runtime at its start. It must not import torch: what the server will do with the device
follows from the device's name alone.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from helios_operator.decide.snapshot import Hardware

_MIB = 1024 * 1024
_DTYPES = {"cpu": "float16", "cuda": "bfloat16"}
_CGROUP = Path("/sys/fs/cgroup")


def detect(device: str = "auto", dtype: str | None = None) -> tuple[str, Hardware]:
    """The device to use ("cpu" or "cuda") and what it offers. `device` auto: an accelerator that the server
    can use."""
    cards = _accelerators()
    if device == "auto":
        device = "cuda" if cards and _torch_has_cuda() else "cpu"
    used = cards if device == "cuda" else []
    hardware = Hardware(
        accelerator=used[0][0] if used else None,
        accelerators=len(used),
        memory_mib=used[0][1] if used else memory_mib(),
        cpu=cpu_name(),
        cores=cores(),
        dtype=dtype or _DTYPES[device],
    )
    return device, hardware


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


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's own name, so that timings of another machine are not taken for this one's."""
    if cpuinfo.exists() and (
        found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    ):
        return found[1].strip()
    return platform.processor() or platform.machine()


def _accelerators() -> list[tuple[str, int]]:
    """Name and memory in MiB of each card that NVML sees; none without the library or the driver."""
    try:
        import pynvml  # optional: without it there is no accelerator to be used
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [
            (_text(pynvml.nvmlDeviceGetName(h)), pynvml.nvmlDeviceGetMemoryInfo(h).total // _MIB)
            for h in handles
        ]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


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
