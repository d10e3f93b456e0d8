"""What surrounds the revisions of a HeliosDeployment: token, Services, policies, budget.

Called at the beginning of every pass. Each object is applied when it is missing, when it would be rendered
differently, and once after the operator starts; a pass with nothing to do asks the server nothing. Which
revision the client Service selects, `apply` says.
"""

from __future__ import annotations

import secrets

from helios_operator.api.types import Deployment
from helios_operator.cluster.client import Client, being_cleared
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    BUDGET_V1BETA1,
    NETWORK_POLICY,
    SECRET,
    SERVICE,
    Kind,
    Object,
)
from helios_operator.cluster.mirror import Mirror, belongs_to
from helios_operator.cluster.reads import Reads
from helios_operator.errors import ConflictError
from helios_operator.render import Manifest, names
from helios_operator.render.installation import Installation
from helios_operator.render.networkpolicy import job_policy, server_policy
from helios_operator.render.pdb import disruption_budget
from helios_operator.render.secret import control_token_secret, token_of
from helios_operator.render.service import client_service, pods_service, routed_revision

_TOKEN_BYTES = 32


class Surroundings:
    def __init__(self, client: Client, mirror: Mirror, reads: Reads, by: Installation, budget: Kind) -> None:
        self._client = client
        self._mirror = mirror
        self._reads = reads
        self._by = by
        self._budget = budget
        self._applied: dict[tuple[str, str], Manifest] = {}
        """By uid of the HeliosDeployment and what it is: as it was last rendered and applied; {}: removed."""

    async def ensure(self, hd: Deployment) -> str:
        """Returns the token of the Control ports."""
        token = await self._token(hd)
        for manifest in self._services(hd):
            await self._apply(hd, SERVICE, manifest)
        for policy in (server_policy(hd, self._by), job_policy(hd)):
            if self._by.network_policies:
                await self._apply(hd, NETWORK_POLICY, policy)
            else:
                await self._remove(hd, NETWORK_POLICY, policy["metadata"]["name"])
        budget = disruption_budget(hd, self._budget.api_version)
        if budget is not None:
            await self._apply(hd, self._budget, budget)
        else:
            await self._remove(hd, self._budget, hd.name)
        return token

    async def route(self, hd: Deployment, number: int) -> None:
        """Sends clients to the pods of this revision."""
        await self._write(hd, SERVICE, client_service(hd, number))

    def forget(self, uid: str) -> None:
        """The HeliosDeployment is gone."""
        self._applied = {at: manifest for at, manifest in self._applied.items() if at[0] != uid}

    async def _token(self, hd: Deployment) -> str:
        """The one that is there; a Secret is created once and never written again."""
        name = names.control_token(hd.name)
        found = await self._reads.get(SECRET, hd.namespace, name)
        if found is None:
            drawn = control_token_secret(hd, secrets.token_urlsafe(_TOKEN_BYTES))
            try:
                found = await self._client.create(SECRET, drawn)
            except ConflictError:
                found = await self._client.get(SECRET, hd.namespace, name) or drawn
            self._reads.put(SECRET, found)
        if not belongs_to(found, hd.uid):
            self._reads.forget(SECRET, hd.namespace, name)
            raise being_cleared(SECRET, found)
        return token_of(found)

    def _services(self, hd: Deployment) -> list[Manifest]:
        service = self._mirror.get(SERVICE, hd.namespace, hd.name)
        routed = routed_revision(service) if service else None
        return [client_service(hd, routed), pods_service(hd)]

    async def _remove(self, hd: Deployment, kind: Kind, name: str) -> None:
        """What an earlier operator or spec wanted; never somebody else's of the same name."""
        at = (hd.uid, f"{kind.plural}/{name}")
        if self._applied.get(at) == {}:
            return
        found = await self._client.get(kind, hd.namespace, name)
        if found and belongs_to(found, hd.uid):
            await self._client.delete(kind, hd.namespace, name)
        self._applied[at] = {}

    async def _apply(self, hd: Deployment, kind: Kind, manifest: Manifest) -> None:
        if self._applied.get(_at(hd, kind, manifest)) != manifest or self._is_missing(kind, manifest):
            await self._write(hd, kind, manifest)

    async def _write(self, hd: Deployment, kind: Kind, manifest: Manifest) -> None:
        answer = await self._client.apply(kind, manifest)
        if kind is SERVICE:
            self._mirror.put(kind, answer)
        self._applied[_at(hd, kind, manifest)] = manifest

    def _is_missing(self, kind: Kind, manifest: Object) -> bool:
        metadata = manifest["metadata"]
        return kind is SERVICE and self._mirror.get(kind, metadata["namespace"], metadata["name"]) is None


def _at(hd: Deployment, kind: Kind, manifest: Manifest) -> tuple[str, str]:
    return hd.uid, f"{kind.plural}/{manifest['metadata']['name']}"


async def budget_kind(client: Client) -> Kind:
    """The newest that the server offers."""
    served = await client.serves(BUDGET_V1.group, BUDGET_V1.version)
    return BUDGET_V1 if served else BUDGET_V1BETA1
