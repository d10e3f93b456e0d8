"""The Control ports of all serving pods: a line to each, few looks at once, limits told to who lacks them.

Used by `revisions` with what the mirror knows of a pod. A look that fails is a pod without telemetry, no
error. It decides nothing: which limits, comes from the revision's document.
"""

from __future__ import annotations

import asyncio
import logging

from helios_contract.limits import Limits
from helios_contract.telemetry import Telemetry
from helios_proto import addresses

from helios_operator.api import ports
from helios_operator.passes.line import Changed, Line

_LOOKS_AT_ONCE = 64
_log = logging.getLogger(__name__)


class Controls:
    """Lines by the uid of the pod."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def look(self, uid: str, host: str, token: str) -> Telemetry | None:
        """None: it does not answer in time."""
        line = await self._line(uid, addresses.join(host, ports.CONTROL), token)
        async with self._looks:
            return await line.look()

    def tell(self, uid: str, limits: Limits, seen: Telemetry, changed: Changed) -> None:
        """One that was looked at; any pass may call this."""
        if line := self._lines.get(uid):
            line.tell(limits, seen, changed, lambda error: _log.warning("%s", error))

    async def keep_only(self, uids: set[str]) -> None:
        """Hangs up on pods that are gone."""
        for uid in self._lines.keys() - uids:
            await self._lines.pop(uid).hang_up()

    async def close(self) -> None:
        await self.keep_only(set())

    async def _line(self, uid: str, address: str, token: str) -> Line:
        line = self._lines.get(uid)
        if line is None or (line.address, line.token) != (address, token):
            if line is not None:
                await line.hang_up()
            line = self._lines[uid] = Line(address, token)
        return line
