"""What a pod takes of its node, as the scheduler counts it: all of its containers, and one of the pods.

Called by `nodes` for pods that are there and for the template of one that is to be, by `mirror` for what of a
pod tells it. It knows no node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from helios_operator.cluster.quantities import number

PODS = "pods"
"""The resource of which every pod takes one."""

Amounts = dict[str, float]
"""By resource, in its own unit."""


def of_pod(spec: Mapping[str, Any]) -> Amounts:
    """The containers that run side by side, or the init container that needs more before them; sidecars (init
    containers that are always restarted) run beside all that start after them."""
    beside: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = of_container(container)
        if container.get("restartPolicy") == "Always":
            beside = _sum(beside, asked)
            most = _larger(most, beside)
        else:
            most = _larger(most, _sum(beside, asked))
    for container in spec.get("containers") or ():
        beside = _sum(beside, of_container(container))
    together = _larger(most, beside) | _asked(spec.get("resources"))
    overhead = {name: number(amount) for name, amount in (spec.get("overhead") or {}).items()}
    return _sum(together, overhead) | {PODS: 1.0}


def told(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a pod's spec that tells it: what is kept of pods that are nobody's business otherwise."""
    part: dict[str, Any] = {"nodeName": spec.get("nodeName")}
    for place in ("containers", "initContainers"):
        part[place] = [
            {key: container[key] for key in ("resources", "restartPolicy") if container.get(key)}
            for container in spec.get(place) or ()
        ]
    whole = {key: spec[key] for key in ("resources", "overhead") if spec.get(key)}
    return {key: value for key, value in part.items() if value} | whole


def of_container(container: Mapping[str, Any]) -> Amounts:
    return _asked(container.get("resources"))


def _asked(resources: Mapping[str, Any] | None) -> Amounts:
    """A limit is a request where none is written."""
    both = {**((resources or {}).get("limits") or {}), **((resources or {}).get("requests") or {})}
    return {name: number(amount) for name, amount in both.items()}


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in _names(one, other)}


def _larger(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in _names(one, other)}


def _names(*amounts: Amounts) -> Iterable[str]:
    return dict.fromkeys(name for each in amounts for name in each)
