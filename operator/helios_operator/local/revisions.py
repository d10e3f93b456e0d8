"""The revisions of one deployment: each a limits document, a number of pods, and whether traffic goes there.

What a cluster keeps in a Deployment and a ConfigMap stands here in a folder per revision, written before
anything is started or told, so that a runtime that was killed comes back with the same revisions. Called by
`observe` (seen), by `apply` (written: records and documents only) and at the end of a pass to settle, as the
controllers of a cluster would: processes come up, are told, or end, as the records say. It must not decide:
every method carries out one action, twice if asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
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
    """What is remembered of a revision beside its limits document. `drain_seconds`: that its streams have to
    end once it drains."""

    number: int
    replicas: int
    created: datetime
    routed: bool = False
    draining: bool = False
    drain_seconds: int = 0


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

    def save_limits(self, limits: Limits, tasks: str = "") -> None:
        """`tasks`: the text of those that the limits ask for; pods find it beside them."""
        if limits.task_probe and tasks:
            write_atomically(self.folder / "tasks.json", tasks)
        write_atomically(self.limits_file, document.to_json(limits))
        self.limits = limits

    def keep_limits(self) -> None:
        """Written again when somebody deleted it: without it no pod could restart."""
        if not self.limits_file.exists():
            self.save_limits(self.limits)


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
        self._deleted: list[Revision] = []

    # -- seen -----------------------------------------------------------------------------------------------

    async def see(self) -> tuple[RevisionSeen, ...]:
        """All revisions with their pods and telemetry."""
        return tuple(await asyncio.gather(*(self._see(revision) for revision in self._all())))

    async def _see(self, revision: Revision) -> RevisionSeen:
        record = revision.record
        pods = await asyncio.gather(*(pod.see(record.number) for pod in revision.pods.values()))
        return RevisionSeen(
            number=record.number,
            limits=revision.limits,
            replicas=record.replicas,
            created=record.created,
            routed=record.routed,
            draining=record.draining,
            pods=tuple(pods),
        )

    def backends(self) -> list[tuple[str, int]]:
        """The ready pods that new connections go to."""
        return [pod.backend for pod in self._routed() if pod.backend is not None]

    def http_backends(self) -> list[tuple[str, int]]:
        """The same for OpenAI's API."""
        return [pod.http_backend for pod in self._routed() if pod.http_backend is not None]

    def _routed(self) -> list[Pod]:
        return [pod for r in self._all() if r.record.routed for pod in r.pods.values()]

    @property
    def claimed_mib(self) -> int:
        """Memory that pods hold or will hold, the draining ones included."""
        return sum(r.limits.memory_mib * max(r.record.replicas, len(r.pods)) for r in self._all())

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

    # -- written --------------------------------------------------------------------------------------------

    def create(self, number: int, limits: Limits, replicas: int, now: datetime, tasks: str = "") -> None:
        if number not in self._by_number:
            revision = Revision(Record(number, replicas, now), limits, self._folder / str(number))
            revision.save_limits(limits, tasks)
            revision.save_record()  # from here on it exists
            self._by_number[number] = revision

    def scale(self, number: int, replicas: int) -> None:
        self._update(self._by_number[number], replicas=replicas)

    def write_limits(self, number: int, limits: Limits, tasks: str = "") -> None:
        """Pods that run are told when the pass settles, one that starts reads it. `tasks`: the text of those
        that the limits ask for."""
        self._by_number[number].save_limits(limits, tasks)

    def route(self, number: int) -> None:
        """New connections go to this revision and to no other."""
        for revision in self._all():
            self._update(revision, routed=revision.record.number == number)

    def drain(self, number: int, timeout_seconds: int) -> None:
        self._update(self._by_number[number], draining=True, replicas=0, drain_seconds=timeout_seconds)

    def delete(self, number: int) -> None:
        revision = self._by_number.pop(number, None)
        if revision is not None:
            self._deleted.append(revision)
            remove_folder(revision.folder)

    # -- settled --------------------------------------------------------------------------------------------

    def settle(self, seen: Iterable[RevisionSeen] = ()) -> None:
        """Brings up, tells and ends pods until all is as the records ask. `seen`: with the telemetry of those
        that may have to be told."""
        while self._deleted:
            for pod in self._deleted.pop().pods.values():
                pod.kill()  # what still runs there is cut
        for revision in self._all():
            revision.keep_limits()
            self._bring_to_size(revision)
        for revision_seen in seen:
            self._tell(revision_seen)

    def _tell(self, seen: RevisionSeen) -> None:
        revision = self._by_number.get(seen.number)
        if revision is None:
            return
        for pod_seen in seen.pods:
            pod = revision.pods.get(pod_seen.name)
            if pod is not None and pod_seen.telemetry is not None:
                pod.tell(revision.limits, pod_seen.telemetry)

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
        record = revision.record
        wanted = {f"{self._deployment}-{record.number}-{i}" for i in range(record.replicas)}
        grace = record.drain_seconds if record.draining else self._settings.drain_seconds
        for name, pod in revision.pods.items():
            if name not in wanted:
                pod.stop(grace)
        for name in sorted(wanted - revision.pods.keys()):
            folder = revision.folder / name
            folder.mkdir(exist_ok=True)
            pod = Pod(name, folder, revision.limits_file, self._settings, self._say, self._changed)
            revision.pods[name] = pod
            pod.start()
            self._say(name, "Normal", "Started", f"revision {record.number}: {revision.limits.model_uri}")

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
