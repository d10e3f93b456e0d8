"""The Control ports of all serving pods: one client each, few looks at once, limits told to who lacks them.

Used by `revisions` with what the mirror knows of a pod. A look that fails is a pod without telemetry, no
error. It decides nothing: which limits, comes from the revision's document.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from helios_contract.limits import Limits
from helios_contract.telemetry import Telemetry
from helios_proto import addresses

from helios_operator.control.client import ControlClient
from helios_operator.errors import ControlError
from helios_operator.render import ports

_LOOKS_AT_ONCE = 64
_log = logging.getLogger(__name__)

Changed = Callable[[], None]
"""Called when a pod has taken or refused what it was told: a pass should look."""


@dataclass
class Line:
    """To one pod, by its uid. `refused`: the newest generation that it turned down."""

    client: ControlClient
    token: str
    refused: int = 0
    telling: asyncio.Task[None] | None = None


class Controls:
    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def look(self, uid: str, host: str, token: str, head_kind: str) -> Telemetry | None:
        """None: it does not answer in time."""
        line = await self._line(uid, addresses.join(host, ports.CONTROL), token)
        async with self._looks:
            return await line.client.telemetry()

    def tell(self, uid: str, limits: Limits, seen: Telemetry, changed: Changed) -> None:
        """Sends the document unless the pod has it, refused it, is going or is being told: any pass may call
        this."""
        line = self._lines.get(uid)
        if line is None or seen.draining or (line.telling and not line.telling.done()):
            return
        if max(seen.known_generation, line.refused) < limits.generation:
            line.telling = asyncio.create_task(self._tell(line, limits, changed), name=f"limits of {uid}")

    async def keep_only(self, uids: set[str]) -> None:
        """Hangs up on pods that are gone."""
        for uid in self._lines.keys() - uids:
            await self._hang_up(self._lines.pop(uid))

    async def close(self) -> None:
        await self.keep_only(set())

    async def _tell(self, line: Line, limits: Limits, changed: Changed) -> None:
        try:
            await line.client.set_limits(limits)
        except ControlError as error:
            if error.refused:
                line.refused = limits.generation
                _log.warning("%s", error)
        changed()

    async def _line(self, uid: str, address: str, token: str) -> Line:
        line = self._lines.get(uid)
        if line is None or (line.client.address, line.token) != (address, token):
            if line is not None:
                await self._hang_up(line)
            line = self._lines[uid] = Line(ControlClient(address, token), token)
        return line

    async def _hang_up(self, line: Line) -> None:
        if line.telling is not None:
            line.telling.cancel()
        await line.client.close()
