"""Ports of a user's pod template that the pods' own server listens on: containers of a pod share its address.

Called by `validation` for `spec.template`, when its form is known to be right. A container that listens where
another does never starts, and a port that lost its name is found by no Service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from helios_contract.problems import Problem

from helios_operator.api import ports

_TCP = "TCP"


def problems(template: Mapping[str, Any], path: str, container: str, *, http: bool) -> Iterator[Problem]:
    """`container`: the one that HELIOS runs; http: whether that serves OpenAI's API."""
    ours = {name: number for name, number in ports.BY_NAME.items() if http or number != ports.HTTP}
    spec = template.get("spec") or {}
    for field in ("containers", "initContainers"):
        for i, each in enumerate(spec.get(field) or ()):
            if not each or (field == "initContainers" and each.get("restartPolicy") != "Always"):
                continue  # one that has ended before the others start listens nowhere
            own = field == "containers" and each.get("name") == container
            for j, port in enumerate(each.get("ports") or ()):
                if port and (port.get("protocol") or _TCP) == _TCP:
                    where = f"{path}.spec.{field}[{i}].ports[{j}]"
                    yield from _renamed(port, where, ours) if own else _taken(port, where, ours)


def _taken(port: Mapping[str, Any], path: str, ours: Mapping[str, int]) -> Iterator[Problem]:
    number = port.get("containerPort")
    if number in ours.values():
        fix = "use another port"
        if number == ports.HTTP:
            fix = "use another port, or set spec.service.httpPort to 0"
        yield Problem(f"{path}.containerPort", f"{number} is where HELIOS serves in this pod", fix)


def _renamed(port: Mapping[str, Any], path: str, ours: Mapping[str, int]) -> Iterator[Problem]:
    """Of our own container's ports: a number keeps its name, and a name its number."""
    name, number = str(port.get("name") or ""), port.get("containerPort")
    named = next((known for known, its in ours.items() if its == number), None)
    if named and name not in ("", named):
        yield Problem(f"{path}.name", f"{name!r} renames the port {named} of HELIOS", "remove the name")
    elif not named and name in ours:
        problem = f"{name!r} is the name of HELIOS' own port {ours[name]}"
        yield Problem(f"{path}.name", problem, "use another name")
