"""Everything that one HeliosDeployment has on this machine: its folder, front address, revisions, Jobs, log
and token.

Made by the runtime, handed through a pass: `ensure` before anything is seen, `settle` when all is written. It
holds the parts together and decides nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from helios_operator.api.rows import Hardware
from helios_operator.api.types import Deployment
from helios_operator.decide.snapshot import Revision
from helios_operator.local import secrets as secrets_here
from helios_operator.local import unready
from helios_operator.local.events import EventLog, Listener
from helios_operator.local.files import write_atomically
from helios_operator.local.front import Front
from helios_operator.local.jobs import Jobs, JobSettings
from helios_operator.local.pods import PodSettings
from helios_operator.local.revisions import Revisions
from helios_operator.render.commands import OPEN, Access


@dataclass(frozen=True)
class Machine:
    """What the runtime may use. `memory_mib`: for all pods together; `memory_given`: a person said so, and a
    deployment without a limit of its own takes that as its limit; `host`: where front addresses listen;
    `access`: certificates and tokens that the command line names."""

    device: str
    hardware: Hardware
    memory_mib: int
    volumes: Path
    memory_given: bool = False
    watts: float | None = None
    host: str = "127.0.0.1"
    access: Access = OPEN


class Site:
    """One deployment's parts."""

    def __init__(
        self,
        folder: Path,
        deployment: Deployment,
        machine: Machine,
        changed: Callable[[], None],
        listener: Listener | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = deployment.name
        self.log = EventLog(folder / "events.jsonl", deployment.name, listener)
        self._folder = folder
        token_file = folder / "token"
        self._token = _token(token_file)
        self._machine = machine
        access = secrets_here.access(deployment, machine.volumes, machine.access)
        self.encrypted = bool(access.tls_cert)
        pods = PodSettings(
            model_name=deployment.spec.model_name,
            token_file=token_file,
            token=self._token,
            volumes=machine.volumes,
            device=machine.device,
            dtype=machine.hardware.dtype,
            drain_seconds=deployment.spec.rollout.drain.timeout_seconds,
            watts=machine.watts,
            max_context=deployment.spec.limits.max_context_tokens,
            access=access,
        )
        self.revisions = Revisions(folder / "revisions", deployment.name, pods, self._say_pod, changed)
        jobs = JobSettings(machine.volumes, machine.device, machine.hardware, token_file, machine.watts)
        self.jobs = Jobs(folder / "jobs", jobs, self._say_job, changed, self._pass_on)
        self.front = Front(self.revisions.backends)
        self.http_front = Front(
            self.revisions.http_backends,
            option="http-port",
            zero="free: any free port, 0: none",
            refusal=b"" if self.encrypted else unready.answer(deployment.name),  # TLS is the pods' to speak
        )

    async def ensure(self, host: str, port: int, http_port: int | None) -> None:
        """What stands whatever is decided: the folder, the token that pods are started with, the addresses
        (http_port None: no such one). AddressInUseError when somebody else has one."""
        token_file = self._folder / "token"
        if not token_file.exists():
            write_atomically(token_file, self._token + "\n", mode=0o600)
        if not self.front.address:
            await self.front.open(host, port)
        if http_port is not None and not self.http_front.address:
            await self.http_front.open(host, http_port)

    def refuse_missing_secrets(self, deployment: Deployment) -> None:
        """UnsupportedError names the Secret of its spec that is not here."""
        secrets_here.refuse_missing(deployment, self._machine.volumes, self._machine.access)

    def settle(self, seen: Iterable[Revision]) -> None:
        """Processes start, are told and end, until all is as it was written. `seen`: in this pass."""
        self.revisions.settle(seen)
        self.jobs.settle()

    async def stop(self, grace_seconds: float) -> None:
        """Jobs end at once, pods drain, then the front addresses go."""
        await self.jobs.stop()
        await self.revisions.stop(grace_seconds)
        await self.close_fronts()

    async def close_fronts(self) -> None:
        await self.front.close()
        await self.http_front.close()

    def _say_pod(self, pod: str, type: str, reason: str, message: str) -> None:
        self.log.add("pod", pod, reason, message, type=type)

    def _pass_on(self, job: str, words: str) -> None:
        self.log.pass_on("job", job, "Progress", words)

    def _say_job(self, job: str, type: str, reason: str, message: str) -> None:
        self.log.add("job", job, reason, message, type=type)


def _token(file: Path) -> str:
    """The secret between this runtime and its pods; readable by the user alone, kept between runs."""
    if not file.exists():
        write_atomically(file, secrets.token_urlsafe(32) + "\n", mode=0o600)
    file.chmod(0o600)
    return file.read_text(encoding="utf-8").strip()
