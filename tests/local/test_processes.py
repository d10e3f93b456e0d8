"""Children end when they should, say why, and never outlive the one who started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helios_operator.local.processes import NICE, BoundedLog, Process

_TIED = "from helios_operator.local import lifeline; lifeline.hold_on()\n"


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


async def test_the_last_words_are_the_error(tmp_path: Path) -> None:
    script = (
        "import sys; print('error: port: in use; choose another', file=sys.stderr); print('bye'); sys.exit(2)"
    )
    process = await Process.start(python(script), log=tmp_path / "log")
    assert await process.wait() == 2
    assert process.last_words == "error: port: in use; choose another (exited with 2)"
    assert "bye" in (tmp_path / "log").read_text()


async def test_a_silent_end_is_described(tmp_path: Path) -> None:
    process = await Process.start(python("import time; time.sleep(3600)"), log=tmp_path / "log")
    process.kill()
    await process.wait()
    assert process.last_words == "ended by SIGKILL"


async def test_grace_then_kill(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(3600)"
    )
    process = await Process.start(python(script), log=tmp_path / "log")
    while "deaf" not in (tmp_path / "log").read_text():
        await asyncio.sleep(0.02)
    assert await process.stop(0.2) == -signal.SIGKILL


async def test_its_own_children_end_with_it(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3600)'])"
    process = await Process.start(python(script), log=tmp_path / "log")
    while not (children := psutil.Process(process.pid).children()):
        await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    assert not [child for child in psutil.wait_procs(children, timeout=60)[1]]


@pytest.mark.parametrize("yields", [True, False])
async def test_one_that_yields_does_so_in_each_of_its_threads(tmp_path: Path, yields: bool) -> None:
    script = (
        "import os, threading, time\n"
        "time.sleep(0.5)\n"
        "def say(): print(os.sched_getscheduler(threading.get_native_id()), flush=True)\n"
        "say(); thread = threading.Thread(target=say); thread.start(); thread.join()"
    )
    process = await Process.start(python(script), log=tmp_path / "log", yields=yields)
    assert await process.wait() == 0
    expected = os.SCHED_IDLE if yields else os.sched_getscheduler(0)
    assert (tmp_path / "log").read_text().split() == [str(expected)] * 2


async def test_where_there_is_no_such_class_it_is_nice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    script = "import os, time; time.sleep(0.5); print(os.nice(0))"
    process = await Process.start(python(script), log=tmp_path / "log", yields=True)
    assert await process.wait() == 0
    assert int((tmp_path / "log").read_text()) == min(os.nice(0) + NICE, 19)


async def test_one_that_ended_at_once_may_have_been_asked_to_yield(tmp_path: Path) -> None:
    process = await Process.start(["true"], log=tmp_path / "log", yields=True)
    assert await process.wait() == 0


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", limit=1000)
    for line in range(1000):
        log.write(f"line {line}\n".encode())
    log.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"log", "log.1"}
    assert all(size <= 1000 for size in sizes.values())
    assert (tmp_path / "log").read_text().endswith("line 999\n")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    """The parent is a process of its own here, killed without a chance to clean up."""
    child = f"{_TIED}import os, sys, time; print('child', os.getpid(), flush=True); time.sleep(3600)"
    parent = (
        "import asyncio, sys; from pathlib import Path; from helios_operator.local.processes import Process\n"
        "async def main():\n"
        f"    await Process.start([sys.executable, '-c', {child!r}], log=Path({str(tmp_path / 'log')!r}))\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    runner = subprocess.Popen(python(parent))
    log = tmp_path / "log"
    while not (log.exists() and log.read_text().endswith("\n")):
        time.sleep(0.02)
    pid = int(log.read_text().split()[1])
    os.kill(runner.pid, how)
    runner.wait()
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not alive


async def test_who_listens_is_told_each_line_once(tmp_path: Path) -> None:
    said: list[str] = []
    script = "import sys; sys.stdout.write('one\\ntw'); sys.stdout.flush(); sys.stdout.write('o\\nthree')"
    process = await Process.start(python(script), log=tmp_path / "log", heard=said.append)
    await process.wait()
    assert said[:2] == ["one", "two"]
