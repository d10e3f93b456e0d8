"""The operator's rights: all that it asked for in this session was granted, and all that is granted was used.

These run last. The sum is over all tests of this folder, so it holds only when all of them ran.
"""

from __future__ import annotations

from pathlib import Path

from helios_operator.cluster.surroundings import budget_kind

from tests.chart import chart
from tests.cluster.live.scene import RECORD, Measured, scene
from tests.cluster.rights import granted


async def test_an_operator_of_all_namespaces(tmp_path: Path, claims: Path, measured: Measured) -> None:
    """By the ClusterRole alone; with a budget that comes and goes."""
    async with scene(tmp_path, claims, everywhere=True) as place:
        budget = await budget_kind(place.admin)
        await place.start_operator()
        await place.create(place.deployment(), measured)
        await place.ready()
        await place.patch("chat", {"replicas": 2})
        await place.until(lambda s: s["readyReplicas"] == 2, what="no second pod")
        assert await place.objects(budget, "chat")
        await place.patch("chat", {"replicas": 1})
        await place.until(lambda s: s["replicas"] == 1, what="two pods stay")
        await place.ready()
        assert not await place.objects(budget, "chat")


def test_every_right_is_needed_and_none_is_missing() -> None:
    rights = granted(chart.only_role(chart.render(), "ClusterRole"))
    assert RECORD.missing == set()
    assert RECORD.used - rights == set()
    assert rights - RECORD.used == set()
