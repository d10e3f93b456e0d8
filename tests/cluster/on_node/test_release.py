"""The chart comes and goes; what serves stays until its own object goes."""

from __future__ import annotations

import asyncio

from helios_operator.cluster.kinds import DEPLOYMENT

from tests.cluster.admin import CRD
from tests.cluster.on_node.release import Release, kubectl_run
from tests.cluster.on_node.served import ServedPlace, flowing, more
from tests.documentation.blocks import Block


async def test_what_serves_outlives_the_chart_and_goes_with_its_object(
    documented: list[Block], place: ServedPlace, installed: Release
) -> None:
    (test,) = documented
    installed.test(test.text)
    place.apply("examples/demo.yaml")
    await place.serving()
    pods = await place.restarts()
    async with flowing(await place.traffic(callers=4, osl=24), "prose") as ledger:
        await asyncio.to_thread(installed.upgrade, "operator.logLevel=debug")
        owned = await place.owned()
        await asyncio.to_thread(installed.uninstall)
        await more(ledger, 8)
    assert await place.restarts() == pods
    assert set(pods.values()) == {0}
    for kind in ("heliosdeployments", "heliosprofiles", "heliosmodels"):
        assert await place.admin.get(CRD, "", f"{kind}.{DEPLOYMENT.group}")
    assert await place.owned() >= _lasting(owned)
    kubectl_run("delete", "heliosdeployment", "chat", "--namespace", place.namespace)
    async with asyncio.timeout(120):
        while await place.owned():
            await asyncio.sleep(0.5)


def _lasting(owned: set[str]) -> set[str]:
    """Jobs end by themselves, and their pods with them."""
    return {name for name in owned if name.split()[0] not in ("Job", "Pod")}
