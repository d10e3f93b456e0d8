"""Profiling Jobs of one deployment: `helios profile` processes with retries, a deadline and a result
document.

Called by `apply` (start, delete: noted only), by `observe` (see) and at the end of a pass to settle, as a
cluster's Job controller would: processes start and end. What to measure, and whether it is worth it, was
decided elsewhere. Jobs live as long as the runtime: what they found stands in profiles.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from helios_contract import progress

from helios_operator.api.rows import Hardware
from helios_operator.api.types import Deployment
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec
from helios_operator.errors import OperatorError
from helios_operator.local.files import remove_folder, write_json
from helios_operator.local.pods import Say
from helios_operator.local.processes import Process, helios_command
from helios_operator.passes import jobs as passes
from helios_operator.render import commands

_STOP_SECONDS = 2.0
Heard = Callable[[str, str], None]
"""Takes a Job's name and how far it is; not kept anywhere."""


@dataclass(frozen=True)
class JobSettings:
    """What every Job of a deployment is started with."""

    volumes: Path
    device: str
    hardware: Hardware
    token_file: Path
    watts: float | None = None

    @property
    def place(self) -> commands.Place:
        return commands.Place(str(self.volumes), str(self.token_file), self.device, self.hardware.dtype)


@dataclass(frozen=True)
class Work:
    """What a Job is to do. `spec`: pinned; `prompts`: given ones; `pod`: host:port of the Control port that
    holds live ones; `tasks`: the text of given ones."""

    spec: JobSpec
    deployment: Deployment
    prompts: tuple[str, ...]
    pod: str | None
    tasks: str = ""


class Jobs:
    """All Jobs of one deployment, finished ones included until they are deleted."""

    def __init__(
        self,
        folder: Path,
        settings: JobSettings,
        say: Say,
        changed: Callable[[], None],
        progress: Heard = lambda *_: None,
    ) -> None:
        remove_folder(folder)
        self._folder = folder
        self._settings = settings
        self._say = say
        self._changed = changed
        self._progress = progress
        self._jobs: dict[str, Job] = {}
        self._asked: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def see(self) -> tuple[Job, ...]:
        """Those that run with how far they last said they are."""
        return tuple(self._jobs.values())

    def start(
        self,
        spec: JobSpec,
        deployment: Deployment,
        prompts: tuple[str, ...],
        pod: str | None,
        tasks: str = "",
    ) -> None:
        """`prompts`: given ones; `pod`: host:port of the Control port that holds live ones; `tasks`: the text
        of given ones. A Job that failed is tried again; one that runs or succeeded is left as it is."""
        before = self._jobs.get(spec.name)
        if before is not None and before.phase is not JobPhase.FAILED:
            return
        attempts = before.attempts + 1 if before else 1
        self._jobs[spec.name] = Job(spec, JobPhase.RUNNING, datetime.now(UTC), attempts=attempts)
        told = passes.pinned(spec, deployment, self._jobs.values())
        self._asked[spec.name] = Work(told, deployment, prompts, pod, tasks)

    def delete(self, name: str) -> None:
        """Whether it runs or not."""
        self._jobs.pop(name, None)
        self._asked.pop(name, None)

    def settle(self) -> None:
        """Ends what was deleted, starts what was asked for."""
        for name in self._tasks.keys() - self._jobs.keys():
            self._tasks.pop(name).cancel()
            remove_folder(self._folder / name)
        asked, self._asked = self._asked, {}
        for name, work in asked.items():
            self._say(name, "Normal", "Started", _describe(work.spec))
            self._tasks[name] = asyncio.create_task(self._work(work), name=f"job {name}")

    async def stop(self) -> None:
        """Ends all: at the runtime's end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, work: Work) -> None:
        name = work.spec.name
        job = self._jobs[name]
        try:
            finished = await self._finished(job, work)
        except (OSError, OperatorError) as error:  # no process, no descriptor, no disk
            finished = passes.failed(job, f"cannot be started: {error}", datetime.now(UTC))
        if name not in self._jobs:
            return  # deleted meanwhile
        self._jobs[name] = finished
        failed = finished.phase is JobPhase.FAILED
        reason, kind = ("Failed", "Warning") if failed else ("Completed", "Normal")
        self._say(name, kind, reason, finished.message or _describe(work.spec))
        self._changed()

    async def _finished(self, job: Job, work: Work) -> Job:
        spec, folder = work.spec, self._folder / work.spec.name
        deadline_seconds = work.deployment.spec.profiling.active_deadline_seconds
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "result.json"
        try:
            async with asyncio.timeout(deadline_seconds):
                code, last_words = await self._run(work, folder)
        except TimeoutError:
            late = f"not done within {deadline_seconds} s; raise profiling.activeDeadlineSeconds"
            return passes.failed(job, f"deadline: {late}", datetime.now(UTC))
        said = "" if code == 0 else _said(result) or last_words
        return passes.failed(job, said, datetime.now(UTC)) if said else self._succeeded(job, spec, result)

    async def _run(self, work: Work, folder: Path) -> tuple[int, str]:
        """Exit status and last words. Cancelling it ends the process."""
        (folder / "result.json").unlink(missing_ok=True)
        process = await Process.start(
            self._command(work, folder),
            log=folder / "log",
            heard=partial(self._hear, work.spec),
            yields=work.spec.kind is not JobKind.TIMING,  # pods go before what is not timed
        )
        try:
            return await process.wait(), process.last_words
        finally:
            if process.exit_code is None:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(process.stop(_STOP_SECONDS))

    def _hear(self, spec: JobSpec, line: str) -> None:
        words, job = progress.heard(line), self._jobs.get(spec.name)
        if words and job:  # one that was deleted meanwhile says its last
            self._jobs[spec.name] = replace(job, progress=words)
            self._progress(spec.name, f"{_describe(spec)}: {words}")

    def _succeeded(self, job: Job, spec: JobSpec, result: Path) -> Job:
        now = datetime.now(UTC)
        try:
            text = result.read_text(encoding="utf-8")
        except OSError as error:
            return passes.failed(job, str(error), now)
        return passes.succeeded(job, spec, text, self._settings.hardware, now)

    def _command(self, work: Work, folder: Path) -> list[str]:
        settings, given = self._settings, None
        if work.prompts:
            given = str(folder / "prompts.json")
            write_json(folder / "prompts.json", work.prompts)
        if work.tasks:
            given = str(folder / "tasks")
            (folder / "tasks").write_text(work.tasks, encoding="utf-8")
        words = commands.profile(
            settings.place, work.spec, work.deployment, str(folder / "result.json"), given, work.pod,
            is_limited=not (commands.runs_on_cpu(work.spec) and settings.place.device != "cpu"),
        )  # fmt: skip
        watts = ("--watts", str(settings.watts)) if settings.watts else ()
        return helios_command(*words, *watts)


def _said(result: Path) -> str | None:
    """What a failed Job wrote about its failure."""
    try:
        return passes.said(result.read_text(encoding="utf-8"))
    except OSError:
        return None


def _describe(spec: JobSpec) -> str:
    return f"{spec.kind.value}: {', '.join(candidate.name for candidate in spec.candidates)}{spec.held}"
