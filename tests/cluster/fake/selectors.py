"""Which objects a selector means, of labels or of fields. Used by `store` and `http`."""

from __future__ import annotations

from typing import Any

from helios_operator.cluster.kinds import Object


def selects(selector: str, obj: Object) -> bool:
    """By a label selector: `a=b,c=d`, or `a` for any value."""
    labels = obj["metadata"].get("labels") or {}
    terms = [term.partition("=") for term in selector.split(",") if term]
    return all(key in labels if not sign else labels.get(key) == value for key, sign, value in terms)


def has(fields: str, obj: Object) -> bool:
    """By a field selector: `a.b=c,d=e`."""
    for term in filter(None, fields.split(",")):
        path, _, wanted = term.partition("=")
        value: Any = obj
        for name in path.split("."):
            value = value.get(name, {}) if isinstance(value, dict) else {}
        if value != wanted:
            return False
    return True
