"""What may refuse a write beside the server itself: quotas, limit ranges, webhooks. In the server's words.

Put into `Store.guards` by tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from helios_operator.cluster.kinds import Kind, Object

from tests.cluster.fake import refusal
from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.store import Store


@dataclass
class Quota:
    """A ResourceQuota on the number of objects. `resource`: as in `count/jobs.batch`, `services`, `pods`."""

    namespace: str
    resource: str
    hard: int
    name: str = "team-quota"

    def __call__(self, store: Store, verb: str, kind: Kind, obj: Object) -> None:
        counted = (f"count/{refusal.resource(kind)}", kind.plural)
        if (
            verb != "create"
            or self.resource not in counted
            or obj["metadata"].get("namespace") != self.namespace
        ):
            return
        used = len(store.list(kind, self.namespace))
        if used + 1 > self.hard:
            why = (
                f"exceeded quota: {self.name}, requested: {self.resource}=1, used: {self.resource}={used}, "
                f"limited: {self.resource}={self.hard}"
            )
            raise refusal.forbidden(kind, obj["metadata"]["name"], why)


@dataclass
class MemoryRange:
    """A LimitRange: what one container may ask for, in MiB."""

    namespace: str
    most_mib: int

    def __call__(self, store: Store, verb: str, kind: Kind, obj: Object) -> None:
        if verb != "create" or kind.name != "Pod" or obj["metadata"].get("namespace") != self.namespace:
            return
        for container in obj["spec"]["containers"]:
            asked = (container.get("resources", {}).get("requests") or {}).get("memory", "0Mi")
            if int(asked.removesuffix("Mi")) > self.most_mib:
                why = f"maximum memory usage per Container is {self.most_mib}Mi, but request is {asked}"
                raise refusal.forbidden(kind, obj["metadata"]["name"], why)


@dataclass
class Webhook:
    """A validating webhook that denies a kind. `code`: what it answers; without one, servers say 400."""

    kind: Kind
    message: str
    name: str = "policy.example.com"
    code: int = 403
    verbs: tuple[str, ...] = ("create", "update")

    def __call__(self, store: Store, verb: str, kind: Kind, obj: Object) -> None:
        if kind == self.kind and verb in self.verbs:
            said = f'admission webhook "{self.name}" denied the request: {self.message}'
            raise Refusal(self.code, "Forbidden" if self.code == 403 else "BadRequest", said)
