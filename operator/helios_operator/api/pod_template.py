"""A user's pod templates (`spec.template`, `spec.profiling.template`), judged before anything is rendered.

Called by `api.validation` on behalf of both ports; `render` may rely on what is admitted here. The CRD leaves
templates open, because they are Kubernetes' own: their types and merge keys are in `pod_template.json`, made
from its schemas. Unknown fields pass (a newer API server may know them). It must not judge what an API server
says better: whether an image exists, a name is taken, a limit is below its request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helios_contract.problems import Problem
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from helios_operator.api.complaints import path_of, problem_of
from helios_operator.api.quantity import is_quantity

SERVER = "helios-server"
"""The container that serves; the name that `spec.template` writes."""
PROFILE = "helios-profile"
"""The container that measures; the name that `spec.profiling.template` writes."""

DIRECTIVE = "$patch"
"""What a strategic merge does with a map or an item of a list, when not to merge it."""
_DIRECTIVES = ("delete", "replace")
_SCALARS = (str, int, float, bool, type(None))
_NATIVE = "kubernetes.io"
_ONCE = (
    "containers",
    "initContainers",
    "topologySpreadConstraints",
    "volumeDevices",
    "volumeMounts",
    "volumes",
)
"""Lists in which an API server refuses two items of one identity; in the others the last one counts."""


@dataclass(frozen=True)
class MergeKeys:
    """How items of a list are told apart. `key`: the field by which a strategic merge finds an item's
    namesake. `identity`: all fields that tell two items apart, of which some lists have more."""

    key: str
    identity: tuple[str, ...]


def problems(template: Mapping[str, Any], path: str, container: str) -> list[Problem]:
    """All that keeps it from being used, each with its path. `container`: the one that HELIOS runs in the
    pod, which a template may change and not take away."""
    found = list(_structure(template, path)) or list(_types(template, path))
    return found or [*_amounts(template, path), *_losses(template, path, container)]


@cache
def merge_keys() -> dict[str, MergeKeys]:
    """By field: within a pod template a list's name is enough."""
    fields = (
        field for each in _schema()["definitions"].values() for field in each.get("properties", {}).items()
    )
    return {
        name: MergeKeys(field["x-kubernetes-patch-merge-key"], tuple(field["x-kubernetes-list-map-keys"]))
        for name, field in fields
        if "merge" in field.get("x-kubernetes-patch-strategy", "") and "x-kubernetes-patch-merge-key" in field
    }


def identity(field: str, item: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells an item from the others of its list. A port without a protocol is TCP's."""
    return tuple(
        item.get(key) or ("TCP" if key == "protocol" else None) for key in merge_keys()[field].identity
    )


def is_device(resource: str) -> bool:
    """An extended resource: accelerators and the like, of which a pod gets whole ones."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != _NATIVE and not domain.endswith(f".{_NATIVE}")


def _structure(value: Any, path: str) -> Iterator[Problem]:
    """What a merge stands on: keys are text, directives known, items of merged lists told apart."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            where = f"{path}.{key}"
            if not isinstance(key, str):
                yield Problem(where, f"the key {key!r} is not a string", "write it in quotes")
            elif key.startswith("$"):
                yield from _directive(key, below, where)
            elif key in merge_keys() and isinstance(below, list):
                yield from _merged_items(key, below, where)
            else:
                yield from _structure(below, where)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _structure(item, f"{path}[{i}]")
    elif not isinstance(value, _SCALARS) or (isinstance(value, float) and not math.isfinite(value)):
        yield Problem(
            path, f"{value!r} is nothing that JSON can say", "write a string, a number, true or false"
        )


def _directive(key: str, value: Any, path: str) -> Iterator[Problem]:
    if key != DIRECTIVE:
        yield Problem(path, "is a directive that HELIOS does not know", f"use {DIRECTIVE}: delete or replace")
    elif value not in _DIRECTIVES:
        yield Problem(path, f"{value!r} is no directive", "write delete or replace, or remove it")


def _merged_items(field: str, items: list[Any], path: str) -> Iterator[Problem]:
    key = merge_keys()[field].key
    seen: list[tuple[Any, ...]] = []
    for i, item in enumerate(items):
        where = f"{path}[{i}]"
        yield from _structure(item, where)
        if not isinstance(item, Mapping) or item.get(DIRECTIVE) == "replace":
            continue
        if item.get(key) is None:
            yield Problem(f"{where}.{key}", "is missing", "add it: the item is found by it")
        elif field in _ONCE and identity(field, item) in seen:
            yield Problem(f"{where}.{key}", f"{item[key]!r} stands twice", "remove or rename one")
        seen.append(identity(field, item))


def _types(template: Mapping[str, Any], path: str) -> Iterator[Problem]:
    errors = sorted(
        _validator().iter_errors(template), key=lambda error: [str(s) for s in error.absolute_path]
    )
    for error in errors:
        found = problem_of(error)
        yield Problem(path_of([path, *error.absolute_path]), found.problem, found.fix)


def _amounts(template: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Quantities that no resource can have, though the grammar has them."""
    spec = template.get("spec") or {}
    for field in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            resources = (container or {}).get("resources") or {}
            for part in ("limits", "requests"):
                for name, amount in (resources.get(part) or {}).items():
                    where = f"{path}.spec.{field}[{i}].resources.{part}.{name}"
                    yield from _amount(name, amount, where)


def _amount(name: str, amount: Any, path: str) -> Iterator[Problem]:
    if name == DIRECTIVE or amount is None:
        return
    if str(amount).startswith("-"):
        yield Problem(path, f"{amount!r} is below 0", "write 0 or more")
    elif is_device(name) and not str(amount).isdecimal():
        yield Problem(path, f"{amount!r} is no number of devices", "write a whole number, as 1")


def _losses(template: Mapping[str, Any], path: str, container: str) -> Iterator[Problem]:
    """What would take from the pod what HELIOS runs in it or finds it by."""
    kept = "name what to remove inside it: HELIOS' own stays"
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    for where, part in (
        ("", template),
        (".metadata", metadata),
        (".metadata.labels", metadata.get("labels") or {}),
    ):
        if DIRECTIVE in part:
            yield Problem(f"{path}{where}.{DIRECTIVE}", "cannot be used here", kept)
    containers = [each for each in spec.get("containers") or () if each]
    replaced = any(each.get(DIRECTIVE) == "replace" for each in containers)
    named = [each for each in containers if each.get("name") == container]
    gone = any(DIRECTIVE in each for each in named) or (
        not named and (replaced or spec.get(DIRECTIVE) == "replace")
    )
    if gone or spec.get(DIRECTIVE) == "delete":
        yield Problem(f"{path}.spec.containers", f"would remove {container}", f"keep a container {container}")


@cache
def _validator() -> OAS30Validator:
    return OAS30Validator(_schema(), format_checker=_formats())


@cache
def _schema() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("pod_template.json").read_text(encoding="utf-8")))


def _formats() -> Any:
    checker = type(oas30_format_checker)(())
    checker.checkers = {
        **oas30_format_checker.checkers,
        "quantity": (lambda value: value is None or is_quantity(value), ()),
        "int-or-string": (lambda value: value is None or _is_int_or_string(value), ()),
    }
    return checker


def _is_int_or_string(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)
