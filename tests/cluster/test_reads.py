"""What is read by name: kept for a while, and longer where there is much of it."""

from __future__ import annotations

import pytest
from helios_operator.cluster import reads
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import SECRET, Kind, Object
from kubernetes.aio.client import Configuration


class Counting(Client):
    """Finds whatever is asked for."""

    asked = 0

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        self.asked += 1
        return {"metadata": {"namespace": namespace, "name": name}}


@pytest.mark.parametrize(("objects", "lasts"), [(10, 30), (1000, 100)])
async def test_many_objects_are_read_at_most_ten_a_second(
    monkeypatch: pytest.MonkeyPatch, objects: int, lasts: int
) -> None:
    now = 1000.0
    monkeypatch.setattr(reads.time, "monotonic", lambda: now)
    client = Counting(Configuration())
    known = reads.Reads(client)

    async def look() -> int:
        before = client.asked
        for number in range(objects):
            await known.get(SECRET, "a", str(number))
        return client.asked - before

    await look()
    now += lasts + 1
    assert await look() == objects
    now += lasts - 1
    assert await look() == 0
    now += 2
    assert await look() == objects
    await client.close()
