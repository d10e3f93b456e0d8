"""Rows of the history table on one machine: owned by each deployment that uses them, as in a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.api import parse, serialize
from helios_operator.api.rows import RowPhase, TimingIdentity, TimingRow
from helios_operator.api.types import DeploymentStatus, Served
from helios_operator.decide.plan import DeleteProfile, Verdict, WriteProfile
from helios_operator.decide.snapshot import Hardware, Snapshot
from helios_operator.local.apply import LocalHands
from helios_operator.local.observe import Observer
from helios_operator.local.runtime import _admit
from helios_operator.local.site import Machine, Site
from helios_operator.local.store import DEPLOYMENT, PROFILE, Store

from tests.local.world import deployment

CPU = Hardware(accelerator=None, accelerators=0, memory_mib=16000, cpu="test", cores=2, dtype="float32")
NOW = datetime(2026, 11, 28, tzinfo=UTC)
WHY = Verdict(True, "Reason", "a sentence")
ROW = TimingRow("t-1", TimingIdentity("m", "r", "float32", ("bare",), CPU, 1), RowPhase.FAILED, "no", NOW)


def named(name: str) -> dict[str, Any]:
    return deployment() | {"metadata": {"name": name}}


class Place:
    """A store with deployments, and the hands of a pass over each."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.store = Store.open(folder / "objects", _admit)
        for name in names:
            self.store.apply(named(name))

    def hands(self, name: str) -> LocalHands:
        hd = parse.deployment(self.store.get(DEPLOYMENT, name))
        machine = Machine("cpu", CPU, 16000, self.folder)
        site = Site(self.folder / name, hd, machine, lambda: None)
        snapshot = Snapshot(hd, CPU, 16000, 1)
        return LocalHands(self.store, Observer(self.store, machine), site, snapshot, NOW)

    def owners(self) -> list[str]:
        return [owner["name"] for owner in self.store.get(PROFILE, "t-1")["metadata"]["ownerReferences"]]


async def test_a_row_that_serves_is_owned_though_its_candidate_left_the_spec(tmp_path: Path) -> None:
    place = Place(tmp_path, "first", "second")
    await place.hands("first").write_profile(WriteProfile(row=ROW, why=WHY))
    status = DeploymentStatus(active=Served("gone", 1, 2, 8, "", timing="t-1"))
    await place.hands("second").adopt_rows(status)
    assert place.owners() == ["first", "second"]
    await place.hands("first").delete_profile(DeleteProfile(name="t-1", why=WHY))
    assert place.owners() == ["second"]
    await place.hands("second").delete_profile(DeleteProfile(name="t-1", why=WHY))
    assert place.store.find(PROFILE, "t-1") is None


async def test_an_owner_that_is_gone_keeps_no_row(tmp_path: Path) -> None:
    place = Place(tmp_path, "first", "second")
    for name in ("first", "second"):
        await place.hands(name).write_profile(WriteProfile(row=ROW, why=WHY))
    place.store.delete(DEPLOYMENT, "first")
    await place.hands("second").delete_profile(DeleteProfile(name="t-1", why=WHY))
    assert place.store.find(PROFILE, "t-1") is None


async def test_an_owner_that_came_again_is_another(tmp_path: Path) -> None:
    place = Place(tmp_path, "first", "second")
    await place.hands("first").write_profile(WriteProfile(row=ROW, why=WHY))
    place.store.delete(DEPLOYMENT, "first")
    place.store.apply(named("first"))
    await place.hands("second").write_profile(WriteProfile(row=ROW, why=WHY))
    assert place.owners() == ["second"]
    kept = place.store.get(PROFILE, "t-1")
    assert parse.profile_row(kept) == ROW
    assert serialize.profile(ROW)["status"] == kept["status"]


async def test_a_row_that_is_wrong_goes_for_all_who_use_it(tmp_path: Path) -> None:
    place = Place(tmp_path, "first", "second")
    for name in ("first", "second"):
        await place.hands(name).write_profile(WriteProfile(row=ROW, why=WHY))
    await place.hands("first").delete_profile(DeleteProfile(name="t-1", for_all=True, why=WHY))
    assert place.store.find(PROFILE, "t-1") is None
