"""Admits an object as an API server with these CRDs would: prune, default, schema, CEL; or says all that is
wrong.

Called by `helios up` for every file, by the store of one machine for every write, and by the operator for
objects that were stored before a rule existed, before anything is rendered from one. The same CRDs rule
everywhere; nothing here knows a field by name but what CRDs cannot say: what is in pod templates, how
long prompts are as JSON, and whether a task's pattern is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from helios_contract.problems import Problem
from jsonschema.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from helios_operator.api import inline_prompts, inline_tasks, pod_ports, pod_template
from helios_operator.api.complaints import path_of, problem_of
from helios_operator.api.crds import API_VERSION, Crd, crds
from helios_operator.api.problems import Invalid
from helios_operator.api.rules import broken_rules
from helios_operator.api.structural import prune_and_default, too_deep, unknown_fields

__all__ = ["Invalid", "Problem", "admit", "warnings"]

Json = dict[str, Any]

_DEPLOYMENT = "HeliosDeployment"
_TEMPLATES = {"spec.template": pod_template.SERVER, "spec.profiling.template": pod_template.PROFILE}
"""Its pod templates, each with the container that HELIOS runs in it."""
_DEEPEST = 64
"""Levels; a pod has some 15. A hostile object must not exhaust the stack of whoever reads it."""


def admit(obj: Json, old: Json | None = None) -> Json:
    """The object as it would be stored. Invalid: with every problem found. `old`: what it would replace."""
    crd = _crd_of(obj)
    admitted = prune_and_default(crd.schema, obj)
    problems = [*_metadata_problems(admitted), *_schema_problems(crd, admitted)]
    # Rules rely on what the schema guarantees: on a malformed object they would only echo its errors.
    problems = problems or list(broken_rules(crd.schema, admitted, old))
    if problems:
        raise Invalid(problems)
    if unrenderable := list(_render_problems(admitted)):
        raise Invalid(unrenderable, admitted)
    return admitted


def _render_problems(admitted: Json) -> Iterator[Problem]:
    """What keeps objects from being rendered, though the CRD admits it."""
    if admitted["kind"] != _DEPLOYMENT:
        return
    yield from inline_prompts.problems(admitted)
    yield from inline_tasks.problems(admitted)
    for path, container in _TEMPLATES.items():
        found = pod_template.problems(_at(admitted, path.split(".")), path, container)
        yield from found or _port_problems(admitted, path, container)


def _port_problems(admitted: Json, path: str, container: str) -> Iterator[Problem]:
    """Of what serves: a Job listens nowhere."""
    if container == pod_template.SERVER:
        http = _at(admitted, ["spec", "service"]).get("httpPort") != 0
        yield from pod_ports.problems(_at(admitted, path.split(".")), path, container, http=http)


def warnings(obj: Json) -> list[Problem]:
    """The fields that admission ignores because no schema has them, each with what was probably meant."""
    return unknown_fields(_crd_of(obj).schema, obj)


def _crd_of(obj: Any) -> Crd:
    if not isinstance(obj, dict):
        raise Invalid([Problem("object", "not a mapping", "write apiVersion, kind, metadata and spec")])
    if steps := too_deep(obj, _DEEPEST):
        problem = f"is nested more than {_DEEPEST} levels deep"
        raise Invalid([Problem(path_of(steps), problem, "no field of Kubernetes is; remove it")])
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if version != API_VERSION:
        problem = f"{version!r} is not known" if version else "is missing"
        raise Invalid([Problem("apiVersion", problem, f"write {API_VERSION}")])
    if not isinstance(kind, str) or kind not in crds():
        close = get_close_matches(str(kind), crds(), n=1)
        problem = f"{kind!r} is not known" if kind else "is missing"
        fix = f"did you mean {close[0]}?" if close else "write one of " + ", ".join(sorted(crds()))
        raise Invalid([Problem("kind", problem, fix)])
    return crds()[kind]


def _metadata_problems(obj: Json) -> Iterator[Problem]:
    """What the server checks of every object: here only what HELIOS relies on."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        yield Problem("metadata.name", "is missing", "give the object a name")
        return
    for key in ("labels", "annotations"):
        for name, value in (metadata.get(key) or {}).items():
            if not isinstance(value, str):
                yield Problem(f"metadata.{key}.{name}", f"{value!r} is not a string", "write it in quotes")


def _schema_problems(crd: Crd, obj: Json) -> Iterator[Problem]:
    errors = sorted(_validator(crd.kind).iter_errors(obj), key=_position)
    yield from (problem_of(error) for error in errors)
    yield from _duplicates(crd.schema, obj, "")


def _position(error: ValidationError) -> list[str]:
    return [str(step) for step in error.absolute_path]


@cache
def _validator(kind: str) -> OAS30Validator:
    return OAS30Validator(crds()[kind].schema, format_checker=oas30_format_checker)


def _duplicates(schema: Json, value: Any, path: str) -> Iterator[Problem]:
    """Map lists have unique keys and set lists unique items: the server's rule, which no JSON schema
    knows."""
    if isinstance(value, dict):
        for key, item in value.items():
            field = schema.get("properties", {}).get(key) or schema.get("additionalProperties") or {}
            yield from _duplicates(field, item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys") or []
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            yield from _repeated([_key_of(item, keys) for item in value], path)
        for i, item in enumerate(value):
            yield from _duplicates(schema.get("items", {}), item, f"{path}[{i}]")


def _key_of(item: Any, keys: list[str]) -> Any:
    return tuple(item.get(key) for key in keys) if keys and isinstance(item, dict) else item


def _repeated(items: list[Any], path: str) -> Iterator[Problem]:
    for i, item in enumerate(items):
        if item in items[:i]:
            shown = item[0] if isinstance(item, tuple) else item
            yield Problem(
                f"{path}[{i}]", f"{shown!r} stands twice", "each may stand once: remove or rename one"
            )


def _at(value: Any, steps: list[str]) -> Json:
    for step in steps:
        value = value.get(step) or {}
    return dict(value)
