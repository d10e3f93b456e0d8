"""Forgetting a deployment of this machine: its objects, its log and what was measured for it alone.

Called by `helios rm`. It takes the lock that a running `helios up` holds, and touches nothing in the folder
that HELIOS did not put there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from helios_operator.local.files import remove_folder
from helios_operator.local.lock import StateLock
from helios_operator.local.store import DEPLOYMENT, PROFILE, Object, Store


def remove(folder: Path, name: str) -> int:
    """How many rows of the history table went with it. StateLockedError: a `helios up` runs on the folder."""
    lock = StateLock.acquire(folder, f"helios rm {name}")
    try:
        store = Store.open(folder / "objects", lambda new, _: new)
        gone = [obj["metadata"]["name"] for obj in store.objects(PROFILE) if _is_let_go(store, obj, name)]
        if store.names(DEPLOYMENT) == [name]:
            remove_folder(folder / "objects")
            remove_folder(folder / "deployments")
            for left in ("lock", "admin.json"):
                (folder / left).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else's files are in it
                folder.rmdir()
            return len(gone)
        for row in gone:
            store.delete(PROFILE, row)
        remove_folder(folder / "deployments" / name)
        store.delete(DEPLOYMENT, name)
        return len(gone)
    finally:
        lock.release()


def _is_let_go(store: Store, row: Object, name: str) -> bool:
    """Nobody else uses it; what others use stays theirs."""
    owners = row["metadata"].get("ownerReferences", [])
    others = [owner for owner in owners if owner["name"] != name]
    if others and len(others) < len(owners):
        store.apply(row | {"metadata": row["metadata"] | {"ownerReferences": others}})
    return not others
