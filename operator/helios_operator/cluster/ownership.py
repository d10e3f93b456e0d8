"""Whose an object is, and whether it says what is wanted of it: questions that come before every write.

Called by `belongings` with what the server has. It asks nobody and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helios_operator.api.types import Deployment
from helios_operator.cluster.kinds import Kind, Object
from helios_operator.errors import NameTakenError
from helios_operator.render import labels
from helios_operator.render.owner import KIND

_KEYS = {"ownerReferences": ("uid",), "ports": ("port", "protocol")}
"""Lists that are maps: others may add to them. Every other list is wanted as it is."""
_EXACT = ("selector", "podSelector")
"""Maps that are wanted as they are: one label more selects other pods."""


def check(hd: Deployment, kind: Kind, obj: Object) -> None:
    """NameTakenError: it is another's."""
    if is_own(hd, obj):
        return
    name = obj["metadata"]["name"]
    owner = _controller(obj)
    if owner is None:
        problem, fix = _unowned(obj), f"delete it, or name this {KIND} otherwise"
    elif owner.get("kind") == KIND and owner.get("name") == hd.name:
        problem, fix = (
            f"belongs to an earlier {KIND} {hd.name}",
            "wait until it is cleared away, or delete it",
        )
    elif owner.get("kind") == KIND:
        problem, fix = f"belongs to {KIND} {owner.get('name')}", f"name one of the two {KIND}s otherwise"
    else:
        problem = f"belongs to {owner.get('kind')} {owner.get('name')}"
        fix = f"delete that, or name this {KIND} otherwise"
    raise NameTakenError(f"{kind.name} {name}", problem, fix)


def is_own(hd: Deployment, obj: Object) -> bool:
    """Controlled by it; or by nobody, and labelled as its own: somebody took the reference away."""
    owner = _controller(obj)
    if owner is not None:
        return bool(owner.get("uid") == hd.uid)
    return labels.common(hd.name).items() <= (obj["metadata"].get("labels") or {}).items()


def says(found: Any, wanted: Any, field: str = "") -> bool:
    """Does it hold all that is wanted? What others added beside it is theirs."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        if field in _EXACT or _opens(found, wanted):
            return found == wanted
        return all(says(found.get(key), value, key) for key, value in wanted.items())
    if isinstance(wanted, list) and field in _KEYS:
        items = {tuple(item.get(key) for key in _KEYS[field]): item for item in found or ()}
        keys = [tuple(item.get(key) for key in _KEYS[field]) for item in wanted]
        return all(key in items and says(items[key], item) for key, item in zip(keys, wanted, strict=True))
    return bool(found == wanted or (not found and not wanted))


def _opens(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """A policy that lets nobody in has no rules: others may not add any."""
    return "policyTypes" in wanted and "ingress" not in wanted and bool(found.get("ingress"))


def _controller(obj: Object) -> Mapping[str, Any] | None:
    references = obj["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def _unowned(obj: Object) -> str:
    manager = (obj["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by")
    return f"is not HELIOS's (managed by {manager})" if manager else "is not HELIOS's"
