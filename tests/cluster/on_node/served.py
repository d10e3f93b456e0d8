"""A namespace whose deployments pods of a node serve: applied as a user does, called as clients do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import yaml
from helios_operator.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    NETWORK_POLICY,
    POD,
    PROFILE,
    REVISION,
    SECRET,
    SERVICE,
    Object,
)
from helios_server.exits.data import prompts

from examples.demo.traffic import Ledger, Traffic
from tests.cluster.fake.objects import AS_PUBLISHED
from tests.cluster.on_node import release
from tests.cluster.on_node.means import ROOT
from tests.cluster.place import Place, condition
from tests.cluster.slower import slower

OWNED = (REVISION, CONFIG_MAP, SERVICE, SECRET, NETWORK_POLICY, JOB, POD, PROFILE)


class ServedPlace(Place):
    def apply(self, file: str) -> None:
        """As a user does."""
        release.kubectl_run("apply", "--namespace", self.namespace, "--filename", file)

    async def create(self, file: str, **spec: Any) -> None:
        """The deployment of an example, with other fields. Its candidates are weighed as published only: the
        tests that use it are about depth and models, and one precision is sooner measured than four."""
        obj = list(yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8")))[-1]
        obj["metadata"]["namespace"] = self.namespace
        obj["spec"]["candidates"] = [each | AS_PUBLISHED for each in obj["spec"]["candidates"]]
        await self.admin.create(DEPLOYMENT, obj | {"spec": obj["spec"] | spec})

    async def chosen(self, traffic: Traffic, domain: str, name: str = "chat") -> Object:
        """What serves once all is measured, on a first set of prompts from callers: they pause while a Job
        measures, for both are slow beside each other."""
        async with flowing(traffic, domain):
            await self.until(lambda s: not _wants_prompts(s), name, what="never had enough prompts")
        return dict((await self.ready(name))["status"]["active"])

    async def timed(self, name: str = "chat") -> Object:
        """What serves once all is measured that needs no prompts."""
        return dict((await self.until(_wants_prompts, name, what="not timed"))["status"]["active"])

    async def slow(self, uri: str, times: int) -> None:
        """Of a model it is written down that its steps take so many times as long as were measured: which of
        two is faster does not depend on what else this machine did meanwhile."""
        for obj in await self.objects(PROFILE):
            row = slower(obj, uri, times)
            if row is not obj:
                metadata = {"name": obj["metadata"]["name"], "namespace": self.namespace}
                await self.admin.apply(PROFILE, row | {"metadata": metadata}, "status")

    async def measured(self, name: str = "chat") -> Object:
        """What serves once all that the spec asks for now is measured, on prompts that came before."""
        generation = (await self.get(name))["metadata"]["generation"]

        def is_done(status: Object) -> bool:
            is_of_now = status.get("observedGeneration", 0) >= generation and "target" not in status
            return is_of_now and condition(status, "Profiled")["status"] == "True"

        obj = await self.until(is_done, name, 600, "not measured")
        return dict(obj["status"]["active"])

    async def serving(self, name: str = "chat") -> Object:
        """The object, once anything answers."""
        return await self.until(
            lambda s: condition(s, "Available")["status"] == "True", name, what="nothing serves"
        )

    async def until_change(self, changes: int, name: str = "chat") -> Object:
        """The newest entry of the history, once it is longer than it was, and nothing is under way."""
        obj = await self.until(
            lambda s: len(s.get("history", [])) > changes and "target" not in s, name, 600, "nothing changed"
        )
        return dict(obj["status"]["history"][-1])

    async def changes(self, name: str = "chat") -> int:
        return len((await self.status(name)).get("history", []))

    async def restarts(self, name: str = "chat") -> dict[str, int]:
        """Of the serving pods, by their names."""
        return {
            pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
            for pod in await self.objects(POD, name)
            if "helios.dev/revision" in pod["metadata"]["labels"]
        }

    async def owned(self) -> set[str]:
        """All that some deployment of the namespace owns, and what that owns."""
        found = [obj | {"kind": kind.name} for kind in OWNED for obj in await self.objects(kind)]
        return {
            f"{obj['kind']} {obj['metadata']['name']}"
            for obj in found
            if obj["metadata"].get("ownerReferences")
        }

    # -- clients --------------------------------------------------------------------------------------------

    async def traffic(self, name: str = "chat", *, callers: int = 16, osl: int = 48) -> Traffic:
        service = await self.admin.get(SERVICE, self.namespace, name)
        assert service is not None
        spec = service["spec"]
        return Traffic(f"{spec['clusterIP']}:{spec['ports'][0]['port']}", callers=callers, osl=osl)


def _wants_prompts(status: Object) -> bool:
    return condition(status, "Profiled").get("reason") == "WaitingForPrompts"


@asynccontextmanager
async def flowing(
    traffic: Traffic, domain: str, words: tuple[int, int] | None = None
) -> AsyncIterator[Ledger]:
    """Callers send text of a domain; when the block is left all of them have been answered, and none was
    lost."""
    async with traffic.flowing(domain, prompts(domain, 300, words=words)) as ledger:
        yield ledger
    lost = [stream.error for stream in ledger.streams if stream.error]
    assert not lost, lost


async def more(ledger: Ledger, requests: int) -> None:
    """Until as many requests more have ended."""
    wanted = len(ledger.streams) + requests
    async with asyncio.timeout(300):
        while len(ledger.streams) < wanted:
            await asyncio.sleep(0.2)
