"""Profiling Jobs of one deployment: `helios profile` processes with retries, a deadline and a result
document.

Called by `apply` (start, delete) and `observe` (see). It plays the part of a cluster's Job controller; what
to measure, and whether it is worth it, was decided elsewhere. Jobs live as long as the runtime: what they
found stands in profiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helios_operator.api.rows import Hardware
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import Job, JobPhase, JobSpec
from helios_operator.local.files import remove_folder, write_json
from helios_operator.local.pods import Say
from helios_operator.local.processes import Process, helios_command
from helios_operator.passes import jobs as passes

_STOP_SECONDS = 2.0


@dataclass(frozen=True)
class JobSettings:
    """What every Job of a deployment is started with."""

    volumes: Path
    device: str
    hardware: Hardware
    token_file: Path
    watts: float | None = None


class Jobs:
    """All Jobs of one deployment, finished ones included until they are deleted."""

    def __init__(self, folder: Path, settings: JobSettings, say: Say, changed: Callable[[], None]) -> None:
        remove_folder(folder)
        self._folder = folder
        self._settings = settings
        self._say = say
        self._changed = changed
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def see(self) -> tuple[Job, ...]:
        return tuple(self._jobs.values())

    def start(self, spec: JobSpec, deployment: Deployment, prompts: tuple[str, ...], pod: str | None) -> None:
        """`prompts`: given ones; `pod`: host:port of the Control port that holds live ones. A Job that
        failed is tried again; one that runs or succeeded is left as it is."""
        before = self._jobs.get(spec.name)
        if before is not None and before.phase is not JobPhase.FAILED:
            return
        attempts = before.attempts + 1 if before else 1
        self._jobs[spec.name] = Job(spec, JobPhase.RUNNING, datetime.now(UTC), attempts=attempts)
        folder = self._folder / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        told = passes.pinned(spec, deployment, self._jobs.values())
        command = self._command(told, deployment, folder, prompts, pod)
        self._say(spec.name, "Normal", "Started", _describe(spec))
        work = self._work(told, command, folder, deployment.spec.profiling.active_deadline_seconds)
        self._tasks[spec.name] = asyncio.create_task(work, name=f"job {spec.name}")

    def delete(self, name: str) -> None:
        """Ends it if it runs."""
        self._jobs.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        remove_folder(self._folder / name)

    async def stop(self) -> None:
        """Ends all: at the runtime's end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, spec: JobSpec, command: list[str], folder: Path, deadline_seconds: int) -> None:
        result = folder / "result.json"
        try:
            async with asyncio.timeout(deadline_seconds):
                code, last_words = await _run(command, folder)
        except TimeoutError:
            late = f"not done within {deadline_seconds} s; raise profiling.activeDeadlineSeconds"
            finished = passes.failed(self._jobs[spec.name], f"deadline: {late}", datetime.now(UTC))
        else:
            said = "" if code == 0 else _said(result) or last_words
            now = datetime.now(UTC)
            finished = (
                passes.failed(self._jobs[spec.name], said, now) if said else self._succeeded(spec, result)
            )
        self._jobs[spec.name] = finished
        failed = finished.phase is JobPhase.FAILED
        reason, kind = ("Failed", "Warning") if failed else ("Completed", "Normal")
        self._say(spec.name, kind, reason, finished.message or _describe(spec))
        self._changed()

    def _succeeded(self, spec: JobSpec, result: Path) -> Job:
        job, now = self._jobs[spec.name], datetime.now(UTC)
        try:
            text = result.read_text(encoding="utf-8")
        except OSError as error:
            return passes.failed(job, str(error), now)
        return passes.succeeded(job, spec, text, self._settings.hardware, now)

    def _command(
        self, spec: JobSpec, deployment: Deployment, folder: Path, prompts: tuple[str, ...], pod: str | None
    ) -> list[str]:
        settings, workload = self._settings, deployment.spec.workload
        command = helios_command(
            "profile", "--kind", spec.kind.value.lower(), "--candidates", _candidates(spec.candidates),
            "--result", str(folder / "result.json"), "--volumes", str(settings.volumes),
            "--device", settings.device, "--dtype", settings.hardware.dtype,
            "--isl", str(workload.isl), "--osl", str(workload.osl),
            "--search", deployment.spec.profiling.search_strategy,
        )  # fmt: skip
        if deployment.spec.limits.memory_mib:
            command += ["--memory-mib", str(deployment.spec.limits.memory_mib)]
        if settings.watts:
            command += ["--watts", str(settings.watts)]
        if prompts:
            write_json(folder / "prompts.json", prompts)
            command += ["--prompts-file", str(folder / "prompts.json")]
        elif pod:
            command += ["--prompts-from", pod, "--control-token-file", str(settings.token_file)]
        if spec.prompts_digest:
            command += ["--prompts-digest", spec.prompts_digest]
        return command


async def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and last words. Cancelling it ends the process."""
    (folder / "result.json").unlink(missing_ok=True)
    process = await Process.start(command, log=folder / "log")
    try:
        return await process.wait(), process.last_words
    finally:
        if process.exit_code is None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(process.stop(_STOP_SECONDS))


def _said(result: Path) -> str | None:
    """What a failed Job wrote about its failure."""
    try:
        return passes.said(result.read_text(encoding="utf-8"))
    except OSError:
        return None


def _candidates(candidates: tuple[Candidate, ...]) -> str:
    rows = [
        {
            "name": candidate.name,
            "uri": candidate.uri,
            "revision": candidate.revision,
            "exits": candidate.exits,
            "exitLayers": list(candidate.exit_layers),
        }
        for candidate in candidates
    ]
    return json.dumps([{key: value for key, value in row.items() if value} for row in rows])


def _describe(spec: JobSpec) -> str:
    return f"{spec.kind.value}: {', '.join(candidate.name for candidate in spec.candidates)}"
