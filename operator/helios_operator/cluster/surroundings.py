"""What surrounds the revisions of a HeliosDeployment: token, Services, policies, budget.

Called at the beginning of every pass. Each stands as it is rendered, whatever somebody made of it; one that
the server does not take, or that is another's, holds up no other. Which revision the client Service selects,
`apply` says.
"""

from __future__ import annotations

import binascii
import secrets
from collections.abc import Awaitable, Callable

from helios_operator.api.conditions import ConditionType
from helios_operator.api.types import Deployment
from helios_operator.cluster.belongings import Belongings
from helios_operator.cluster.client import Client
from helios_operator.cluster.kinds import (
    BUDGET_V1,
    BUDGET_V1BETA1,
    NETWORK_POLICY,
    REVISION,
    SECRET,
    SERVICE,
    Kind,
    Object,
)
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.ownership import check, is_own
from helios_operator.cluster.reads import Reads
from helios_operator.cluster.refusals import Refusals
from helios_operator.cluster.route import routed
from helios_operator.errors import NameTakenError
from helios_operator.render import Manifest, names
from helios_operator.render.installation import Installation
from helios_operator.render.networkpolicy import job_policy, server_policy
from helios_operator.render.pdb import disruption_budget
from helios_operator.render.secret import control_token_secret, token_of
from helios_operator.render.service import (
    client_service,
    pods_service,
    replicas_service,
    serves_http,
    serves_tls,
)

_TOKEN_BYTES = 32


class Surroundings:
    def __init__(
        self,
        belongings: Belongings,
        refusals: Refusals,
        mirror: Mirror,
        reads: Reads,
        by: Installation,
        budget: Kind,
    ) -> None:
        self._belongings = belongings
        self._refusals = refusals
        self._mirror = mirror
        self._reads = reads
        self._by = by
        self._budget = budget

    async def ensure(self, hd: Deployment) -> str:
        """Returns the token of the Control ports; "" while there can be none."""
        tokens: list[str] = []

        async def take() -> None:
            tokens.append(await self.token(hd))

        await self._refusals.attempt(hd, "the token", take, ConditionType.AVAILABLE)
        for kind, name, work in self._works(hd):
            await self._refusals.attempt(hd, f"{kind.name} {name}", work)
        return tokens[0] if tokens else ""

    async def token(self, hd: Deployment) -> str:
        """The one that is there; a Secret is made once and never written again. NameTakenError: it is not
        ours, and no pod may mount it."""
        name = names.control_token(hd.name)
        found = await self._reads.get(SECRET, hd.namespace, name)
        if found is None:
            drawn = control_token_secret(hd, secrets.token_urlsafe(_TOKEN_BYTES))
            found = await self._belongings.make_once(hd, SECRET, drawn)
        token = readable_token(hd, found)
        if not token:
            self._reads.forget(SECRET, hd.namespace, name)
            check(hd, SECRET, found)
            raise _without_token(name)
        return token

    async def route(self, hd: Deployment, number: int) -> None:
        """Sends clients to the pods of this revision, by either name. Where the headless one is another's,
        the address does without it."""
        await self._belongings.keep(hd, SERVICE, self._client_service(hd, number))
        replicas = self._replicas_service(hd, number)
        what = f"{SERVICE.name} {replicas['metadata']['name']}"
        await self._refusals.attempt(hd, what, self._keep(hd, SERVICE, replicas))

    def _works(self, hd: Deployment) -> list[tuple[Kind, str, Callable[[], Awaitable[None]]]]:
        """What is to be there and what is not, each a work of its own."""
        number = routed(hd, self._mirror)
        services = (
            self._client_service(hd, number),
            self._replicas_service(hd, number),
            pods_service(hd),
        )
        wanted = [(SERVICE, service) for service in services]
        policies = [server_policy(hd, self._by), job_policy(hd)]
        unwanted: list[tuple[Kind, str]] = []
        if self._by.network_policies:
            wanted += [(NETWORK_POLICY, policy) for policy in policies]
        else:
            unwanted += [(NETWORK_POLICY, policy["metadata"]["name"]) for policy in policies]
        budget = disruption_budget(hd, self._budget.api_version)
        if budget is not None:
            wanted.append((self._budget, budget))
        else:
            unwanted.append((self._budget, hd.name))
        return [
            *(
                (kind, manifest["metadata"]["name"], self._keep(hd, kind, manifest))
                for kind, manifest in wanted
            ),
            *((kind, name, self._remove(hd, kind, name)) for kind, name in unwanted),
        ]

    def _keep(self, hd: Deployment, kind: Kind, manifest: Manifest) -> Callable[[], Awaitable[None]]:
        return lambda: self._belongings.keep(hd, kind, manifest)

    def _remove(self, hd: Deployment, kind: Kind, name: str) -> Callable[[], Awaitable[None]]:
        """What an earlier operator or spec wanted."""
        return lambda: self._belongings.remove(hd, kind, name)

    def _client_service(self, hd: Deployment, number: int | None) -> Manifest:
        """With the port of OpenAI's API when the pods behind it have it: those of a release before do not."""
        template = self._template(hd, number)
        with_http = template is None or serves_http(template)
        return client_service(hd, number, with_http=with_http, with_tls=self._with_tls(hd, template))

    def _replicas_service(self, hd: Deployment, number: int | None) -> Manifest:
        return replicas_service(hd, number, with_tls=self._with_tls(hd, self._template(hd, number)))

    def _template(self, hd: Deployment, number: int | None) -> Manifest | None:
        """Of the pods of a revision; None while there is none."""
        if number is None:
            return None
        revision = self._mirror.get(REVISION, hd.namespace, names.revision(hd.name, number))
        return revision["spec"]["template"] if revision else None

    def _with_tls(self, hd: Deployment, template: Manifest | None) -> bool:
        return serves_tls(template) if template is not None else hd.spec.service.tls is not None


def readable_token(hd: Deployment, secret: Object) -> str:
    """ "" where it is another's, or somebody took the token out."""
    try:
        return token_of(secret) if is_own(hd, secret) else ""
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        return ""


def _without_token(name: str) -> NameTakenError:
    return NameTakenError(f"Secret {name}", "holds no token any more", "delete it: it is created again")


async def budget_kind(client: Client) -> Kind:
    """The newest that the server offers."""
    served = await client.serves(BUDGET_V1.group, BUDGET_V1.version)
    return BUDGET_V1 if served else BUDGET_V1BETA1
