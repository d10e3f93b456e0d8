"""The revisions of one deployment: each a limits document, a number of pods, and whether traffic goes there.

What a cluster keeps in a Deployment and a ConfigMap stands here in a folder per revision, written before
anything is started or told, so that a runtime that was killed comes back with the same revisions. Called by
`observe` and `apply`. It must not decide: every method carries out one action, twice if asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from helios_contract import limits as document
from helios_contract.limits import Limits

from helios_operator.control import limits as limits_documents
from helios_operator.decide.snapshot import Revision as RevisionSeen
from helios_operator.errors import StateError
from helios_operator.local.files import read_json, remove_folder, write_atomically, write_json
from helios_operator.local.pods import Pod, PodSettings, Say


@dataclass(frozen=True)
class Record:
    """What is remembered of a revision beside its limits document."""

    number: int
    replicas: int
    created: datetime
    routed: bool = False
    draining: bool = False


class Revision:
    """A record, its document and its pods."""

    def __init__(self, record: Record, limits: Limits, folder: Path) -> None:
        self.record = record
        self.limits = limits
        self.folder = folder
        self.pods: dict[str, Pod] = {}

    @property
    def limits_file(self) -> Path:
        return self.folder / "limits.json"

    def save_record(self) -> None:
        content = vars(self.record) | {"created": self.record.created.isoformat()}
        write_json(self.folder / "revision.json", content)

    def save_limits(self, limits: Limits) -> None:
        write_atomically(self.limits_file, document.to_json(limits))
        self.limits = limits


class Revisions:
    """All revisions of one deployment."""

    def __init__(
        self, folder: Path, deployment: str, settings: PodSettings, say: Say, changed: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._deployment = deployment
        self._settings = settings
        self._say = say
        self._changed = changed
        self._by_number = {revision.record.number: revision for revision in _read_all(folder)}

    # -- seen -----------------------------------------------------------------------------------------------

    async def see(self, head_kind_of: Callable[[str], str]) -> tuple[RevisionSeen, ...]:
        """All revisions with their pods and telemetry. `head_kind_of`: kind of a candidate's exit heads. What
        is missing is started first, as a controller of the cluster would see to."""
        self.start()
        return tuple(await asyncio.gather(*(self._see(r, head_kind_of) for r in self._all())))

    async def _see(self, revision: Revision, head_kind_of: Callable[[str], str]) -> RevisionSeen:
        record, kind = revision.record, head_kind_of(revision.limits.candidate)
        pods = await asyncio.gather(*(pod.see(record.number, kind) for pod in revision.pods.values()))
        seen = RevisionSeen(
            number=record.number,
            limits=revision.limits,
            replicas=record.replicas,
            created=record.created,
            routed=record.routed,
            draining=record.draining,
            pods=tuple(pods),
        )
        for pod in pods:
            revision.pods[pod.name].tell(revision.limits, pod.telemetry)
        return seen

    def backends(self) -> list[tuple[str, int]]:
        """The ready pods that new connections go to."""
        pods = [pod for r in self._all() if r.record.routed for pod in r.pods.values()]
        return [pod.backend for pod in pods if pod.backend is not None]

    @property
    def claimed_mib(self) -> int:
        """Memory that pods hold or will hold, the draining ones included."""
        return sum(r.limits.memory_mib * sum(pod.alive for pod in r.pods.values()) for r in self._all())

    def control_address(self, pod: str | None) -> str | None:
        """host:port of a pod's Control port; None when it does not listen."""
        return next((p.control_address for p in self.pods() if p.name == pod), None)

    def crashing(self, restarts: int) -> dict[str, str]:
        """By candidate: why its pods have ended so often without serving."""
        return {
            revision.limits.candidate: pod.last_words
            for revision in self._all()
            for pod in revision.pods.values()
            if pod.restarts >= restarts and not pod.ready
        }

    def pods(self) -> list[Pod]:
        return [pod for revision in self._all() for pod in revision.pods.values()]

    # -- done -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Brings every pod up that the records ask for."""
        for revision in self._all():
            if not revision.record.draining:  # its streams ended with the runtime that was stopped
                self._bring_to_size(revision)

    def create(self, number: int, limits: Limits, replicas: int, now: datetime) -> None:
        if number not in self._by_number:
            revision = Revision(Record(number, replicas, now), limits, self._folder / str(number))
            revision.save_limits(limits)
            revision.save_record()  # from here on it exists
            self._by_number[number] = revision
        self._bring_to_size(self._by_number[number])

    def scale(self, number: int, replicas: int) -> None:
        revision = self._by_number[number]
        self._update(revision, replicas=replicas)
        self._bring_to_size(revision)

    def write_limits(self, number: int, limits: Limits) -> None:
        """The document first; pods are told at the next look, a restarted one reads it."""
        self._by_number[number].save_limits(limits)
        self._changed()

    def route(self, number: int) -> None:
        """New connections go to this revision and to no other."""
        for revision in self._all():
            self._update(revision, routed=revision.record.number == number)

    def drain(self, number: int, timeout_seconds: int) -> None:
        revision = self._by_number[number]
        self._update(revision, draining=True, replicas=0)
        for pod in revision.pods.values():
            pod.stop(timeout_seconds)

    def delete(self, number: int) -> None:
        """Cuts what still runs there."""
        revision = self._by_number.pop(number, None)
        if revision is None:
            return
        for pod in revision.pods.values():
            pod.kill()
        remove_folder(revision.folder)

    async def stop(self, grace_seconds: float) -> None:
        """Drains every pod: at the runtime's end. Nothing is forgotten."""
        for pod in self.pods():
            pod.stop(grace_seconds)
        await asyncio.gather(*(pod.gone() for pod in self.pods()), return_exceptions=True)

    def kill(self) -> None:
        for pod in self.pods():
            pod.kill()

    def _all(self) -> list[Revision]:
        """By number, without the pods that have gone."""
        for revision in self._by_number.values():
            revision.pods = {name: pod for name, pod in revision.pods.items() if pod.alive}
        return [self._by_number[number] for number in sorted(self._by_number)]

    def _bring_to_size(self, revision: Revision) -> None:
        wanted = {f"{self._deployment}-{revision.record.number}-{i}" for i in range(revision.record.replicas)}
        for name, pod in revision.pods.items():
            if name not in wanted:
                pod.stop(self._settings.drain_seconds)
        for name in sorted(wanted - revision.pods.keys()):
            folder = revision.folder / name
            folder.mkdir(exist_ok=True)
            pod = Pod(name, folder, revision.limits_file, self._settings, self._say, self._changed)
            revision.pods[name] = pod
            pod.start()
            self._say(
                name, "Normal", "Started", f"revision {revision.record.number}: {revision.limits.model_uri}"
            )

    def _update(self, revision: Revision, **changes: Any) -> None:
        changed = replace(revision.record, **changes)
        if changed != revision.record:
            revision.record = changed
            revision.save_record()


def _read_all(folder: Path) -> list[Revision]:
    """A folder without a record was never finished, or is half deleted: it is removed."""
    revisions = []
    for path in sorted(folder.glob("[0-9]*")):
        if not (path / "revision.json").exists():
            remove_folder(path)
            continue
        try:
            content = read_json(path / "revision.json")
            record = Record(**(content | {"created": datetime.fromisoformat(content["created"])}))
        except (TypeError, KeyError, ValueError) as error:
            fix = "restore the file, or delete the revision's folder"
            raise StateError(str(path / "revision.json"), f"is damaged ({error})", fix) from None
        limits_file = path / "limits.json"
        if not limits_file.exists():
            raise StateError(str(limits_file), "is missing", "restore it, or delete the revision's folder")
        revisions.append(
            Revision(record, limits_documents.read(limits_file.read_text(), str(limits_file)), path)
        )
    return revisions
