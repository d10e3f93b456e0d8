"""The line to one pod's Control port: looks at it, and tells it of limits that it lacks, once.

Kept by every runtime for each pod that it can reach, hung up when the pod goes. Which limits, comes from the
revision's document, which stands before any pod hears of it. It decides nothing and retries nothing: the next
pass calls again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from helios_contract.limits import Limits
from helios_contract.telemetry import Telemetry

from helios_operator.control.client import ControlClient
from helios_operator.errors import ControlError

_log = logging.getLogger(__name__)
Changed = Callable[[], None]
"""Called when a pod has taken or refused what it was told: a pass should look."""
Refused = Callable[[ControlError], None]
"""Called when it was refused."""


class Line:
    def __init__(self, address: str, token: str) -> None:
        """`address`: host:port."""
        self.address = address
        self.token = token
        self._client = ControlClient(address, token)
        self._refused = 0
        self._telling: asyncio.Task[None] | None = None

    async def look(self) -> Telemetry | None:
        """None: it does not answer in time."""
        return await self._client.telemetry()

    def tell(self, limits: Limits, seen: Telemetry, changed: Changed, refused: Refused) -> None:
        """Sends the document unless the pod has it, refused it, is going or is being told: any pass may call
        this."""
        if seen.draining or (self._telling and not self._telling.done()):
            return
        if max(seen.known_generation, self._refused) < limits.generation:
            work = self._tell(limits, seen.limits.generation, changed, refused)
            self._telling = asyncio.create_task(work, name=f"limits of {self.address}")

    async def hang_up(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        await self._client.close()

    async def _tell(self, limits: Limits, has: int, changed: Changed, refused: Refused) -> None:
        """`has`: the generation that the pod was seen with. If somebody told it others since, the next look
        sees that."""
        try:
            await self._client.set_limits(limits, has)
        except ControlError as error:
            _log.info("%s", error)
            if error.refused:
                self._refused = limits.generation
                refused(error)
        changed()
