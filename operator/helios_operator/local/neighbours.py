"""Rows that other deployments of this machine measured, taken over where this one would measure the same.

Called by the runtime as it begins. A measurement is found by its identity, so that nothing else is needed
than to have it; texts of live traffic stay with the deployment whose traffic they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helios_server.planning import PERFORMANCE_VERSION

from helios_operator.api.problems import Invalid
from helios_operator.errors import StateError
from helios_operator.local.store import PROFILE, Object, Store


@dataclass(frozen=True)
class Wanted:
    """What a deployment measures: uris of its models, digests of the prompts and tasks that it gives."""

    uris: frozenset[str]
    digests: frozenset[str]

    def fits(self, spec: Object) -> bool:
        about = spec[str(spec["kind"]).lower()]
        if spec["kind"] == "Timing":
            is_of_today = about["performanceVersion"] == PERFORMANCE_VERSION
            return is_of_today and about["backbone"]["uri"] in self.uris
        texts = about["promptsDigest"] if spec["kind"] == "Quality" else about["tasksDigest"]
        return about["candidate"]["uri"] in self.uris and texts in self.digests


def adopt(store: Store, folders: Iterable[Path], wanted: Wanted) -> list[str]:
    """Names of the rows that were taken over. A folder that cannot be read keeps what it has."""
    return [name for folder in folders for name in _adopted(store, folder, wanted)]


def _adopted(store: Store, folder: Path, wanted: Wanted) -> Iterator[str]:
    rows: list[Object] = []
    with suppress(StateError):
        rows = Store.read(folder / "objects").objects(PROFILE)
    for row in rows:
        name = row["metadata"]["name"]
        is_complete = row.get("status", {}).get("phase") == "Complete"
        with suppress(Invalid, KeyError):  # of another release
            if is_complete and store.find(PROFILE, name) is None and wanted.fits(row["spec"]):
                labels = {"labels": row["metadata"].get("labels", {})}
                store.apply({**row, "metadata": {"name": name, **labels}, "status": {}})
                store.write_status(PROFILE, name, row["status"])
                yield name
