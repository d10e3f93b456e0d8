"""The door through which `helios reassess|switch|pause` change objects of a running `helios up`.

Reading needs no door: the state folder is always whole and current. Writing goes through the one writer: a
loopback port whose number and secret stand in a file that only the user can read. One JSON object per line
each way.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helios_proto import addresses

from helios_operator.errors import NotRunningError, OperatorError
from helios_operator.local import lock
from helios_operator.local.files import read_json, write_json

_NAME = "admin.json"
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Change:
    """What is asked for: annotations to set, or one field of the spec."""

    deployment: str
    annotations: Mapping[str, str] | None = None
    spec_path: tuple[str, ...] = ()
    spec_value: Any = None


class AdminServer:
    """Passes changes to `make`, which raises what must be told to the caller."""

    def __init__(self, folder: Path, make: Callable[[Change], None]) -> None:
        self._file = folder / _NAME
        self._make = make
        self._secret = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        host = addresses.loopback()
        self._server = await asyncio.start_server(self._serve, host, 0)
        port = self._server.sockets[0].getsockname()[1]
        self._file.unlink(missing_ok=True)  # its rights are set at creation
        write_json(self._file, {"host": host, "port": port, "secret": self._secret}, mode=0o600)

    async def close(self) -> None:
        self._file.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # the caller went away or never was one of ours
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            if not hmac.compare_digest(str(asked.pop("secret")), self._secret):
                return _problem("secret", "is wrong", "run the verb as the user who runs `helios up`")
            change = Change(**(asked | {"spec_path": tuple(asked.get("spec_path", ()))}))
        except (ValueError, KeyError, TypeError, AttributeError):
            return _problem("request", "is not understood", "use the `helios` of the same release")
        try:
            self._make(change)
        except OperatorError as error:
            return _problem(error.field, error.problem, error.fix)
        return {}


async def ask(folder: Path, change: Change) -> None:
    """Has the running `helios up` of this state folder make a change. NotRunningError when there is none."""
    if lock.holder(folder) is None or not (folder / _NAME).exists():
        problem = f"no `helios up` runs on {folder}"
        raise NotRunningError(change.deployment, problem, "start it with `helios up FILE`, then ask again")
    door = read_json(folder / _NAME)
    asked = {**vars(change), "annotations": dict(change.annotations or {}), "secret": door["secret"]}
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(door.get("host", "127.0.0.1"), door["port"])
            writer.write(json.dumps(asked).encode() + b"\n")
            answer = json.loads(await reader.readline() or b"{}")
            writer.close()
    except (OSError, TimeoutError):
        problem = f"the `helios up` of {folder} does not answer"
        raise NotRunningError(change.deployment, problem, "try again, or restart it") from None
    if "problem" in answer:
        raise OperatorError(answer["field"], answer["problem"], answer["fix"])


def _problem(field: str, problem: str, fix: str) -> dict[str, Any]:
    return {"field": field, "problem": problem, "fix": fix}
