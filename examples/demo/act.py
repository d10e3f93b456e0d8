"""One act: a deployment on this machine, callers in front of it, and what HELIOS does about what they
send.

`play` reads as the programme; everything that HELIOS does is its own doing: the act only sends traffic,
waits and writes down.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.api.rows import RowPhase
from helios_operator.api.types import Decision, HistoryEntry, Served
from helios_operator.decide import weigh
from helios_operator.decide.snapshot import JobPhase
from helios_operator.local.runtime import LocalRuntime, Options

from examples.demo import options
from examples.demo.kept import keep
from examples.demo.phases import Phase, Recorder
from examples.demo.screen import Screen
from examples.demo.texts import passages
from examples.demo.traffic import Stream, Traffic

_LEAST_REQUESTS = 40
"""In a phase that nothing ends, so that its figures mean something."""
_PROMPTS = 300
_MOST_REQUESTS = 240
"""To wait for a change after the traffic changed; more, while a reassessment is under way or the audits of
what came since have not said anything: of int8 they may take 5 % of the processors, and a fast engine has
answered these before one batch is done."""
_AUDITED = 24
"""Three batches, after which audits have said what they have to say."""
_MOST_SECONDS = 150.0
"""Of a phase that waits for it."""


@dataclass(frozen=True)
class Programme:
    """One act. `memory_mib`: of the machine, for all processes together; None: what there is. `callers`:
    at once. `begins_from`: a state folder in which something was chosen already; `keeps`: where to put a copy
    of this act's, once its first traffic is served by what was chosen for it.
    """

    number: int
    title: str
    objects: Sequence[dict[str, Any]]
    traffic: Sequence[str]
    callers: int
    osl: int
    memory_mib: int | None = None
    begins_from: Path | None = None
    keeps: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What an act came to. `changes` are the deployment's history after the first selection; `options`: what
    was weighed of depth and precision for the first kind of traffic, in words.
    """

    phases: list[Phase]
    selection: HistoryEntry | None
    changes: list[HistoryEntry]
    streams: list[Stream]
    options: list[str] = field(default_factory=list)


class Act:
    """Inside `play` the runtime is up; `snapshot` is what its newest pass saw."""

    def __init__(self, programme: Programme, state: Path, volumes: Path, screen: Screen) -> None:
        self._programme = programme
        self._screen = screen
        self._name = programme.objects[-1]["metadata"]["name"]
        self._state = state
        self._volumes = volumes
        how = Options(
            volumes=volumes, port=0, http=False, memory_mib=programme.memory_mib, command="make demo"
        )
        self._runtime = LocalRuntime(programme.objects, state, how, listener=screen.record)

    async def play(self) -> Outcome:
        programme = self._programme
        if programme.begins_from:
            shutil.copytree(programme.begins_from, self._state)
        async with self._runtime as runtime:
            await self._until(lambda: self._serves, "a process loads the model")
            await self._until(lambda: self._timed, "timing the steps of each model")
            traffic = Traffic(
                runtime.front_address(self._name),
                callers=programme.callers,
                osl=programme.osl,
                on_text=self._screen.text,
            )
            recorder = Recorder(programme.number, traffic.ledger)
            first, *others = programme.traffic
            if not programme.begins_from and not self._chosen:
                await self._serve_at_full_depth(first, traffic, recorder)
                await self._until(lambda: self._chosen, "profiling on the prompts that came in")
            await self._serve(first, traffic, recorder, await_change=False)
            weighed = self._options(first)
            if programme.keeps:
                keep(self._state, programme.keeps)
            for domain in others:
                await self._serve(domain, traffic, recorder, await_change=True)
            selections = [entry for entry in self._history if entry.kind is Decision.SELECT]
            changes = [entry for entry in self._history if entry.kind is not Decision.SELECT]
            selection = selections[0] if selections else None
            return Outcome(recorder.phases, selection, changes, traffic.ledger.streams, weighed)

    # -- its scenes -------------------------------------------------------------------------------------

    async def _serve_at_full_depth(self, domain: str, traffic: Traffic, recorder: Recorder) -> None:
        """Until the pod holds a full set of live prompts: what the candidates will be measured on."""
        async with traffic.flowing(domain, self._prompts(domain, 0)):
            recorder.open(domain, self._snapshot, self._reason())
            await self._until(lambda: self._has_prompts, f"{domain} at full depth", recorder)
            recorder.close()

    async def _serve(self, domain: str, traffic: Traffic, recorder: Recorder, *, await_change: bool) -> None:
        """Sends one kind of traffic until nothing more happens; each change opens a phase of its own."""
        async with traffic.flowing(domain, self._prompts(domain, 1)):
            most = _MOST_REQUESTS if await_change else _LEAST_REQUESTS
            audited = _AUDITED if await_change else 0
            while await self._phase(domain, recorder, most, audited):
                most, audited = _LEAST_REQUESTS, 0

    async def _phase(self, domain: str, recorder: Recorder, requests: int, audited: int) -> bool:
        """One phase, until a change ends it (True) or so many requests went by, so many of them were audited
        and nothing is weighed, or took too long."""
        before, active, end = len(self._history), self._active, time.monotonic() + _MOST_SECONDS

        def is_over() -> bool:
            late = time.monotonic() > end
            said = late or (recorder.audited >= audited and not self._weighs)
            return recorder.requests >= requests and said and self._settled

        recorder.open(domain, self._snapshot, self._reason())
        await self._until(
            lambda: len(self._history) > before or is_over(),
            f"{domain} at {active.layer_budget} layers of {active.candidate}, {active.precision}",
            recorder,
        )
        recorder.close()
        return len(self._history) > before

    # -- what is seen -----------------------------------------------------------------------------------

    @property
    def _snapshot(self) -> Any:
        return self._runtime.snapshot(self._name)

    @property
    def _history(self) -> list[HistoryEntry]:
        """Oldest first."""
        return sorted(self._snapshot.deployment.status.history, key=lambda entry: entry.time)

    @property
    def _active(self) -> Served:
        active: Served = self._snapshot.deployment.status.active
        return active

    @property
    def _timed(self) -> bool:
        """Every backbone is timed, in whatever precision, and no Job disturbs the callers."""
        snapshot = self._snapshot
        done = {row.identity.model_uri for row in snapshot.timings if row.phase is RowPhase.COMPLETE}
        running = any(job.phase is JobPhase.RUNNING for job in snapshot.jobs)
        return done >= {one.uri for one in snapshot.deployment.spec.candidates} and not running

    @property
    def _chosen(self) -> bool:
        """The first reassessment has come to something, and it is in effect."""
        status = self._snapshot.deployment.status
        return status.reassessment.last_time is not None and self._settled

    @property
    def _serves(self) -> bool:
        snapshot = self._runtime.snapshot(self._name)
        if snapshot is None or snapshot.deployment.status.active is None:
            return False
        return any(pod.ready for revision in snapshot.revisions if revision.routed for pod in revision.pods)

    @property
    def _settled(self) -> bool:
        status = self._snapshot.deployment.status
        return status.active is not None and status.target is None

    @property
    def _weighs(self) -> bool:
        return self._snapshot.deployment.status.reassessment.trigger is not None

    @property
    def _has_prompts(self) -> bool:
        pods = [pod for revision in self._snapshot.revisions for pod in revision.pods]
        return any(pod.telemetry and pod.telemetry.prompts for pod in pods)

    def _reason(self) -> str:
        if not self._history:
            decided = self._snapshot.deployment.status.reassessment
            return decided.message or "nothing is profiled yet: the reference candidate at full depth"
        newest = self._history[-1]
        kind = "First choice" if newest.kind is Decision.SELECT else newest.kind.value
        return f"{kind}: {newest.message}"

    def _options(self, domain: str) -> list[str]:
        """On the newest profile, which is of these prompts."""
        _, weighed = weigh(self._snapshot, datetime.now(UTC))
        return [f"{domain}: {line}" for line in options.told(weighed, self._active)]

    def _prompts(self, domain: str, seed: int) -> list[str]:
        return passages(self._programme.objects, domain, _PROMPTS, volumes=self._volumes, seed=seed)

    async def _until(self, holds: Callable[[], bool], doing: str, recorder: Recorder | None = None) -> None:
        """Waits, with a line on the screen that says for what and since when. Ten minutes are a failure."""
        began = time.monotonic()
        with self._screen.waiting(doing):
            while not holds():
                if recorder:
                    recorder.watch(self._snapshot)
                if time.monotonic() - began > 600:
                    raise TimeoutError(f"act {self._programme.number} waited 10 minutes: {doing}")
                await asyncio.sleep(0.2)
