"""The operator's rights: all that it asked for in these tests was granted, and all that is granted was used.

Run when the other tests of this folder have run and left what they saw in HELIOS_RIGHTS_SEEN: the sum is over
all of them.
"""

from __future__ import annotations

import os
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
    for seen in Path(os.environ["HELIOS_RIGHTS_SEEN"]).glob("*.json"):
        RECORD.add(seen)
    rights = granted(chart.only_role(chart.render(), "ClusterRole"))
    assert RECORD.missing == set()
    assert RECORD.used - rights == set()
    assert rights - RECORD.used == set()
