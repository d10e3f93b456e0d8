"""A pod of one machine: a `helios serve` process that is probed, restarted with back-off, told of limits,
drained.

Made by `revisions`. It plays the kubelet's part and makes no decision: which limits, when to drain and when
to go come from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helios_contract.limits import Limits
from helios_contract.telemetry import Telemetry
from helios_proto import addresses

from helios_operator.decide.snapshot import Pod as PodSeen
from helios_operator.decide.snapshot import PodPhase
from helios_operator.errors import ControlError
from helios_operator.local.probes import probe
from helios_operator.local.processes import Process, helios_command
from helios_operator.passes.line import Line
from helios_operator.render import commands

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
_CALM_SECONDS = 120.0
"""A process that lived this long starts again with the shortest back-off."""
_READY_PERIOD, _LIVE_PERIOD = 0.2, 5.0
_PROBE_SECONDS, _READY_FAILURES, _LIVE_FAILURES = 5.0, 3, 6
"""A pod on a busy machine may be late; only one that answers "no", or is silent again and again, is out."""
_KILL_SECONDS = 5.0
"""Beyond the drain's own deadline, for the process to say goodbye; all that one with no streams is given."""

Say = Callable[[str, str, str, str], None]
"""(about, type, reason, message)"""


@dataclass(frozen=True)
class PodSettings:
    """What every pod of a deployment is started with. `drain_seconds`: the default deadline of a drain;
    `max_context`: tokens of a request, None: the model's."""

    model_name: str
    token_file: Path
    token: str
    volumes: Path
    device: str
    dtype: str
    drain_seconds: int
    watts: float | None = None
    max_context: int | None = None
    access: commands.Access = commands.OPEN


@dataclass(frozen=True)
class Ports:
    generation: int
    control: int
    metrics: int
    http: int


class Pod:
    """Runs from `start` to the end of `stop`. `changed` is called whenever a pass should look."""

    def __init__(
        self,
        name: str,
        folder: Path,
        limits_file: Path,
        settings: PodSettings,
        say: Say,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.ready = False
        self.restarts = 0
        self.last_words = ""
        self._host = addresses.loopback()
        self._folder = folder
        self._limits_file = limits_file
        self._settings = settings
        self._say = say
        self._changed = changed
        self._started = datetime.now(UTC)
        self._message = "starting"
        self._process: Process | None = None
        self._ports: Ports | None = None
        self._line: Line | None = None
        self._may_stream = False
        """The process was ready once: streams may stand, though it answers no probe now."""
        self._stopping = False
        self._life: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[int] | None = None

    # -- what others see ------------------------------------------------------------------------------------

    @property
    def backend(self) -> tuple[str, int] | None:
        """Where clients reach it; None while it is not ready."""
        if not (self.ready and self._ports) or self._stopping:
            return None
        return (self._host, self._ports.generation)

    @property
    def http_backend(self) -> tuple[str, int] | None:
        """The same for OpenAI's API."""
        return (self._host, self._ports.http) if self.backend and self._ports else None

    @property
    def control_address(self) -> str | None:
        return self._line.address if self._line else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Until its last process has ended and none will follow."""
        return self._life is not None and not self._life.done()

    async def see(self, revision: int) -> PodSeen:
        """The pod as a pass sees it, telemetry included when it answers in time."""
        telemetry = await self._line.look() if self._line else None
        return PodSeen(
            name=self.name,
            revision=revision,
            phase=self._phase(),
            ready=self.ready and not self._stopping,
            started=self._started,
            restarts=self.restarts,
            message="" if self.ready else self._message,
            telemetry=telemetry,
        )

    def _phase(self) -> PodPhase:
        if self._stopping:
            return PodPhase.TERMINATING
        if self._process is None and self.restarts:
            return PodPhase.FAILED
        return PodPhase.RUNNING if self.ready else PodPhase.PENDING

    # -- what others do to it -------------------------------------------------------------------------------

    def start(self) -> None:
        self._life = asyncio.create_task(self._live(), name=f"pod {self.name}")

    def tell(self, limits: Limits, seen: Telemetry) -> None:
        """Sends the limits document, unless that was done: any pass may call this."""
        if self._line is not None and not self._stopping:
            self._line.tell(limits, seen, self._changed, self._say_refused)

    def stop(self, grace_seconds: float) -> None:
        """Drains: SIGTERM, running streams end by themselves, SIGKILL when the grace is over. Returns at
        once."""
        if self._stopping:
            return
        self._stopping = True
        grace = grace_seconds if self._may_stream else 0.0
        self._say(self.name, "Normal", "Killing", f"draining, at most {grace:.0f} s" if grace else "stopping")
        if self._process is not None:
            self._ending = asyncio.create_task(self._process.stop(grace + _KILL_SECONDS))
        elif self._life is not None:
            self._life.cancel()

    def kill(self) -> None:
        """At once: what still streams is cut."""
        self._stopping = True
        if self._process is not None:
            self._process.kill()
        elif self._life is not None:
            self._life.cancel()

    async def gone(self) -> None:
        """Until the last process has ended."""
        if self._life is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._life

    # -- its life -------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            try:
                await self._run_once()
            except OSError as error:  # no process, no descriptor, no disk: as any other crash
                self.last_words = f"pod: cannot be started ({error}); free what it lacks"
                self._message = f"CrashLoopBackOff: {self.last_words}"
            self._changed()
            if self._stopping:
                break
            failures = 0 if time.monotonic() - began > _CALM_SECONDS else failures
            self.restarts += 1
            self._say(self.name, "Warning", "BackOff", self._message)
            await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
            failures += 1

    async def _run_once(self) -> None:
        """One process from its start to its end, with everything that hangs on it."""
        ports_file = self._folder / "ports.json"
        ports_file.unlink(missing_ok=True)
        self._process = process = await Process.start(self._command(ports_file), log=self._folder / "log")
        watching = asyncio.create_task(self._watch(process, ports_file), name=f"probes of {self.name}")
        try:
            await process.wait()
            self.last_words = process.last_words.removeprefix("error: ")
            self._message = f"CrashLoopBackOff: {self.last_words}"
        finally:
            watching.cancel()
            self.ready = self._may_stream = False
            self._process = None
            self._ports = None
            await self._hang_up()

    def _command(self, ports_file: Path) -> list[str]:
        s = self._settings
        place = commands.Place(str(s.volumes), str(s.token_file), s.device, s.dtype)
        at = commands.Listening(self._host, 0, 0, 0, 0)
        words = commands.serve(
            place, str(self._limits_file), s.model_name, at, s.drain_seconds, s.max_context
        )
        watts = ("--energy-watts", str(s.watts)) if s.watts else ()
        access = commands.access(s.access)
        return helios_command(*words, *access, "--ports-file", str(ports_file), *watts)

    async def _watch(self, process: Process, ports_file: Path) -> None:
        """Probes as a kubelet does: readiness often, liveness seldom and patiently."""
        self._ports = ports = await _bound_ports(ports_file)
        self._line = Line(addresses.join(self._host, ports.control), self._settings.token)
        self._message = "loading the model" if not self.restarts else self._message
        last_alive = next_live = time.monotonic()
        silent = 0
        while True:
            status = await probe(self._host, ports.metrics, "/readyz", _PROBE_SECONDS)
            silent = silent + 1 if status is None else 0
            if status is not None or silent >= _READY_FAILURES:
                self._set_ready(status == 200)
            if time.monotonic() >= next_live:
                if await probe(self._host, ports.metrics, "/healthz", _PROBE_SECONDS) == 200:
                    last_alive = time.monotonic()
                elif time.monotonic() - last_alive > _LIVE_PERIOD * _LIVE_FAILURES and not self._stopping:
                    self._say(self.name, "Warning", "Unhealthy", "does not answer /healthz; it is restarted")
                    process.kill()
                next_live = time.monotonic() + _LIVE_PERIOD
            await asyncio.sleep(_READY_PERIOD if not self.ready else 5 * _READY_PERIOD)

    def _set_ready(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        if ready:
            self._may_stream = True
            self._say(
                self.name,
                "Normal",
                "Ready",
                f"serves on {addresses.join(self._host, self._ports.generation if self._ports else 0)}",
            )
        elif not self._stopping:
            self._message = "not ready"
        self._changed()

    def _say_refused(self, error: ControlError) -> None:
        self._say(self.name, "Warning", "LimitsRefused", error.problem)

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.hang_up()


async def _bound_ports(ports_file: Path) -> Ports:
    """Waits for the file that the server writes once it listens."""
    while not ports_file.exists():
        await asyncio.sleep(0.05)
    bound = json.loads(ports_file.read_text(encoding="utf-8"))
    return Ports(bound["port"], bound["control_port"], bound["metrics_port"], bound["http_port"])
