"""Objects that are read by name and never listed: ConfigMaps, Secrets, volume claims. Each is read again
after a while.

Used by `observe` and `apply`. What the operator writes itself is known at once. It holds copies and writes
nothing.
"""

from __future__ import annotations

import time

from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import Kind, Object, key_of

_SECONDS = 30.0
_MOST_PER_SECOND = 10.0
"""Of all that are read again: where there are many, each is read more seldom."""
_MISSING_SECONDS = 5.0
"""What is missing is looked for more often: somebody may be about to make it."""


class Reads:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[Kind, str, str], tuple[float, Object | None]] = {}

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """None: there is none."""
        at = (kind, namespace, name)
        until, found = self._known.get(at, (0.0, None))
        if time.monotonic() >= until:
            found = await self._client.get(kind, namespace, name)
            self._keep(at, found)
        return found

    def known(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """As it was read last, however long ago: what a pass has seen, it has seen so."""
        return self._known.get((kind, namespace, name), (0.0, None))[1]

    def put(self, kind: Kind, obj: Object) -> None:
        """As the server answered a write."""
        self._keep((kind, *key_of(obj)), obj)

    def forget(self, kind: Kind, namespace: str, name: str) -> None:
        self._known.pop((kind, namespace, name), None)

    def drop_stale(self) -> None:
        """What nobody has asked for lately; called at every resync."""
        now = time.monotonic()
        self._known = {at: kept for at, kept in self._known.items() if kept[0] > now - _SECONDS}

    def _keep(self, at: tuple[Kind, str, str], found: Object | None) -> None:
        lasts = max(_SECONDS, len(self._known) / _MOST_PER_SECOND) if found else _MISSING_SECONDS
        self._known[at] = (time.monotonic() + lasts, found)
