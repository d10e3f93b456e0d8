"""Rows of the history table that several deployments take up at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from helios_operator.api import serialize
from helios_operator.api.types import CandidateStatus, Deployment, DeploymentStatus
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import DEPLOYMENT, PROFILE, Kind, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.profiles import Profiles
from helios_operator.errors import ConflictError
from kubernetes.aio.client import Configuration

from tests.decide.builders import inline, selected, world
from tests.decide.truth import BARE_BIG
from tests.render import objects


class Strict(Client):
    """Answers after a while, and takes a write of the version that it has only."""

    version = 1

    async def apply(self, kind: Kind, obj: Object, subresource: str = "") -> Object:
        await asyncio.sleep(0.001)
        if int(obj["metadata"]["resourceVersion"]) != self.version:
            raise ConflictError("PATCH", "was changed meanwhile", 409, "Conflict")
        self.version += 1
        return {**obj, "metadata": {**obj["metadata"], "uid": "row", "resourceVersion": str(self.version)}}


async def test_deployments_of_one_operator_do_not_trip_over_each_other() -> None:
    made = selected(world(inline(), 80, big=BARE_BIG))
    row = next(row for row in made.rows.values() if row.name.startswith("q-"))
    mirror, client = Mirror(), Strict(Configuration())
    written: dict[str, Any] = serialize.profile(row, namespace="team-a")
    written["metadata"] |= {"uid": "row", "resourceVersion": "1"}
    mirror.put(PROFILE, written)
    users = [deployment(f"chat-{number}") for number in range(8)]
    for hd in users:
        metadata = {"name": hd.name, "namespace": hd.namespace, "uid": hd.uid, "resourceVersion": "1"}
        mirror.put(DEPLOYMENT, {"metadata": metadata})
    uses = DeploymentStatus(candidates=(CandidateStatus("big", "Profiled", True, quality=row.name),))
    profiles = Profiles(client, mirror)
    await asyncio.gather(*(profiles.adopt(uses, hd) for hd in users))
    owners = (mirror.get(PROFILE, "team-a", row.name) or {})["metadata"]["ownerReferences"]
    assert {owner["name"] for owner in owners} == {hd.name for hd in users}
    assert client.version == 1 + len(users)
    await asyncio.gather(*(profiles.adopt(uses, hd) for hd in users))
    assert client.version == 1 + len(users)  # there is nothing more to write
    await client.close()


def deployment(name: str) -> Deployment:
    return replace(objects.deployment(), name=name, namespace="team-a", uid=name)
