"""The smaller parts of the runtime: log, queue, machine, admin door, limits files."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from helios_contract.limits import Limits
from helios_operator.errors import NotRunningError, ObjectNotFoundError, OperatorError, StateError
from helios_operator.local import admin, events, hardware
from helios_operator.local.admin import AdminServer, Change
from helios_operator.local.events import EventLog
from helios_operator.local.lock import StateLock
from helios_operator.local.pods import PodSettings
from helios_operator.local.revisions import Revisions
from helios_operator.passes.queue import WorkQueue
from helios_server.models.linear import default_dtype

# -- the log ------------------------------------------------------------------------------------------------


def test_a_line_is_said_once_and_kept(tmp_path: Path) -> None:
    heard = []
    log = EventLog(tmp_path / "events.jsonl", "chat", heard.append)
    for message in ("starting", "starting", "ready"):
        log.add("pod", "chat-1-0", "Ready", message)
    assert [record.message for record in heard] == ["starting", "ready"]
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": "cut sho')  # a kill in the middle of a line
    again = EventLog(tmp_path / "events.jsonl", "chat")
    again.add("pod", "chat-1-0", "Killing", "draining")
    assert [record.message for record in events.read(tmp_path / "events.jsonl")] == [
        "starting",
        "ready",
        "draining",
    ]


# -- the queue ----------------------------------------------------------------------------------------------


async def test_a_key_is_looked_at_once_and_not_too_often() -> None:
    queue = WorkQueue(spacing=0.1)
    for _ in range(3):
        queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    began = time.monotonic()
    assert await queue.get() == "a"
    assert time.monotonic() - began >= 0.09
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.2)


async def test_an_earlier_time_wins() -> None:
    queue = WorkQueue(spacing=0)
    queue.add("a", after=60)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0.01)
    queue.add("b", after=0.05)
    queue.add("a")
    assert await waiting == "a"
    assert await queue.get() == "b"


async def test_looks_where_nothing_happened_wait_for_the_others() -> None:
    queue = WorkQueue(spacing=0)
    for number in range(3):
        queue.add(f"idle-{number}", after=-1, idle=True)
    queue.add("new")
    queue.add("idle-2")  # something happened to it
    queue.add("new", idle=True)  # which takes nothing from it
    order = [await queue.get() for _ in range(4)]
    assert order == ["idle-2", "new", "idle-0", "idle-1"]
    queue.add("idle-2", idle=True)
    queue.add("new")
    assert [await queue.get() for _ in range(2)] == ["new", "idle-2"]


# -- the machine --------------------------------------------------------------------------------------------


def test_memory_is_the_containers_when_that_is_less(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemFree: 1 kB\n")
    assert hardware.memory_mib(meminfo, tmp_path) == 24000000 // 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.memory_mib(meminfo, tmp_path) == 24000000 // 1024
    (tmp_path / "memory.max").write_text(f"{512 * 1024 * 1024}\n")
    assert hardware.memory_mib(meminfo, tmp_path) == 512


def test_cores_are_the_containers_when_those_are_fewer(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert hardware.cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware.cores(tmp_path) == hardware.cores(tmp_path / "nothing")


def test_this_machine_is_described() -> None:
    device, found = hardware.detect("cpu")
    assert (device, found.accelerator, found.accelerators) == ("cpu", None, 0)
    assert found.dtype == default_dtype("cpu")  # as a pod's server resolves it
    assert found.cpu
    assert found.cores >= 1
    assert found.memory_mib > 100
    assert hardware.detect("cpu", "float32")[1].dtype == "float32"


PAIRS = "fpu avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16 avx512_vnni"


@pytest.mark.parametrize(
    ("flags", "said", "expected"),
    [
        ("fpu avx2 amx_bf16 amx_tile amx_int8", None, "bfloat16"),
        ("fpu avx2 amx_bf16 amx_tile", "amx", "bfloat16"),
        ("fpu avx2 amx_bf16 amx_tile", "avx512", "float16"),
        ("fpu avx2 amx_bf16 amx_tile", "off", "float16"),
        ("fpu avx2 avx512f", None, "float16"),
        (PAIRS, None, "bfloat16"),
        (PAIRS, "avx512_bf16", "bfloat16"),
        (PAIRS, "avx512", "float16"),
        (PAIRS, "amx", "float16"),
        (PAIRS.replace("avx512_vnni", ""), None, "float16"),
        (f"GenuineIntel {PAIRS}", None, "float16"),  # pairs are slower there
        (f"GenuineIntel {PAIRS}", "avx512_bf16", "bfloat16"),
        (f"GenuineIntel {PAIRS} amx_bf16 amx_tile", None, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_kernels_multiply_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, said: str | None, expected: str
) -> None:
    vendor = "GenuineIntel" if flags.startswith("GenuineIntel") else "AuthenticAMD"
    cpuinfo, library = tmp_path / "cpuinfo", tmp_path / "library.so"
    one = f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n"
    cpuinfo.write_text(f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}")
    monkeypatch.setattr(hardware, "library_file", lambda: library)
    monkeypatch.delenv("HELIOS_NATIVE", raising=False)
    if said is not None:
        monkeypatch.setenv("HELIOS_NATIVE", said)
    assert hardware.default_dtype("cpu", cpuinfo) == "float16"  # the kernels are not built
    library.touch()
    assert hardware.default_dtype("cpu", cpuinfo) == expected
    assert hardware.default_dtype("cpu", tmp_path / "nothing") == "float16"
    assert hardware.default_dtype("cuda", cpuinfo) == "bfloat16"


@dataclass(frozen=True)
class Reported:
    """What NVML says of one device; `slices` None: it cannot be cut."""

    name: str | bytes
    mib: int
    slices: tuple[Reported | None, ...] | None = None
    is_cut: bool = False


class Nvml:
    """The library's calls, answered from what a machine reported."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: Reported) -> None:
        self._cards = cards

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Reported:
        return self._cards[index]

    def nvmlDeviceGetName(self, device: Reported) -> str | bytes:
        return device.name

    def nvmlDeviceGetMemoryInfo(self, device: Reported) -> SimpleNamespace:
        return SimpleNamespace(total=device.mib * 2**20)

    def nvmlDeviceGetMigMode(self, device: Reported) -> list[int]:
        if device.slices is None:
            raise self.NVMLError("Not Supported")
        return [int(device.is_cut), int(device.is_cut)]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Reported) -> int:
        return len(device.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Reported, index: int) -> Reported:
        found = (device.slices or ())[index]
        if found is None:
            raise self.NVMLError("Not Found")
        return found


_SLICE = Reported("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864)


@pytest.mark.parametrize(
    ("card", "devices"),
    [
        (Reported(b"NVIDIA L4", 23034), [("NVIDIA L4", 23034)]),
        (Reported("NVIDIA A100-SXM4-40GB", 40960, (None,) * 7), [("NVIDIA A100-SXM4-40GB", 40960)]),
        (
            Reported("NVIDIA A100-SXM4-40GB", 40960, (_SLICE, None, _SLICE), is_cut=True),
            [("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864)] * 2,
        ),
        (Reported("NVIDIA A100-SXM4-40GB", 40960, (None,) * 7, is_cut=True), []),
    ],
)
def test_a_card_that_is_cut_is_its_slices(card: Reported, devices: list[tuple[str, int]]) -> None:
    assert hardware.reported(Nvml(card)) == devices


def test_an_accelerator_that_is_not_reported_has_no_memory_of_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "_accelerators", list)
    device, found = hardware.detect("cuda")
    assert (device, found.accelerator, found.accelerators, found.memory_mib) == ("cuda", "cuda", 1, 0)


# -- the admin door -----------------------------------------------------------------------------------------


async def test_changes_are_asked_for_and_answered(tmp_path: Path) -> None:
    made: list[Change] = []

    def make(change: Change) -> None:
        if change.deployment == "nobody":
            raise ObjectNotFoundError("HeliosDeployment", "there is no 'nobody'", "name one that exists")
        made.append(change)

    with pytest.raises(NotRunningError, match="helios up FILE"):
        await admin.ask(tmp_path, Change("chat"))
    lock, server = StateLock.acquire(tmp_path, "helios up"), AdminServer(tmp_path, make)
    await server.open()
    assert (tmp_path / "admin.json").stat().st_mode & 0o077 == 0
    await admin.ask(tmp_path, Change("chat", annotations={"helios.dev/reassess": "now"}))
    await admin.ask(tmp_path, Change("chat", spec_path=("rollout", "paused"), spec_value=True))
    assert [change.spec_value for change in made] == [None, True]
    assert made[0].annotations == {"helios.dev/reassess": "now"}
    with pytest.raises(OperatorError, match="there is no 'nobody'"):
        await admin.ask(tmp_path, Change("nobody"))
    file = tmp_path / "admin.json"
    file.write_text(file.read_text().replace('"secret": "', '"secret": "x'))
    with pytest.raises(OperatorError, match="secret: is wrong"):
        await admin.ask(tmp_path, Change("chat"))
    await server.close()
    lock.release()
    assert len(made) == 2


# -- revisions on disk --------------------------------------------------------------------------------------


def revisions(folder: Path) -> Revisions:
    settings = PodSettings("chat", folder / "token", "t", folder, "cpu", "float32", 5)
    return Revisions(folder, "chat", settings, lambda *_: None, lambda: None)


def limits(**changes: object) -> Limits:
    return replace(Limits(generation=1, candidate="x", model_uri="x"), **changes)  # type: ignore[arg-type]


async def test_a_revision_is_remembered_as_it_was(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = revisions(tmp_path)
    first.create(1, limits(memory_mib=100), 0, now)
    first.create(2, limits(memory_mib=200), 0, now)
    first.route(1)
    first.route(2)
    first.drain(1, 5)
    first.write_limits(2, limits(layer_budget=24, generation=9))
    seen = await revisions(tmp_path).see()
    assert [(r.number, r.routed, r.draining, r.created) for r in seen] == [
        (1, False, True, now),
        (2, True, False, now),
    ]
    assert seen[1].limits == limits(layer_budget=24, generation=9)
    first.delete(1)
    first.delete(1)
    assert [r.number for r in await revisions(tmp_path).see()] == [2]


async def test_an_unfinished_revision_never_was_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    revisions(tmp_path).create(3, limits(), 0, datetime.now(UTC))
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "limits.json").write_text("{}")
    assert [r.number for r in await revisions(tmp_path).see()] == [3]
    assert not (tmp_path / "4").exists()
    (tmp_path / "3" / "limits.json").write_text("{")
    with pytest.raises(StateError, match=r"3/limits\.json: is damaged"):
        revisions(tmp_path)
