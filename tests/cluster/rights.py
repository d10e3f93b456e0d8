"""Calls of an API server in the words of its rules: verb, group and resource.

The proxy notes what the operator asks for; `granted` says what a role allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_OBJECTS = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)"
    r"(?:/namespaces/[^/]+(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)
_DISCOVERY = re.compile(r"/(?:version|api|apis|api/v1|apis/[^/]+|apis/[^/]+/[^/]+)/?")
_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_CREATED = 201


class Right(NamedTuple):
    verb: str
    group: str
    resource: str
    """With its part, as in `pods/status`."""


def needed(method: str, path: str, *, watch: bool, status: int) -> set[Right]:
    """Empty for discovery, which everybody may do. An apply that made its object needed two rights."""
    if method == "GET" and _DISCOVERY.fullmatch(path):
        return set()
    found = _OBJECTS.fullmatch(path)
    if found is None:
        raise ValueError(f"{method} {path}: neither objects nor discovery")
    group, resource = found["group"] or "", found["resource"]
    if found["part"]:
        resource += f"/{found['part']}"
    verbs = {_WRITES[method] if method in _WRITES else _reading(found["name"], watch)}
    if method == "PATCH" and status == _CREATED:
        verbs.add("create")
    return {Right(verb, group, resource) for verb in verbs}


def granted(role: Mapping[str, Any]) -> set[Right]:
    """Of a Role or ClusterRole without wildcards."""
    return {
        Right(verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _reading(name: str | None, watch: bool) -> str:
    if name:
        return "get"
    return "watch" if watch else "list"
