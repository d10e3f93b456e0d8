"""Compares our admission with an API server's on every object of these tests: `python -m
tests.api.compare_with_server`.

For whoever changes a CRD or the admission code and has a cluster with the CRDs installed (KUBECONFIG).
Objects are created with dry run only. Exits 1 when a verdict or a stored spec differs. Not collected by
pytest: the tests beside it need no cluster.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from helios_operator.api.crds import GROUP, VERSION, crds
from helios_operator.api.validation import Invalid, admit
from kubernetes import client, config

from tests.api import test_constraints as constraints
from tests.api import test_rules as rules
from tests.api.objects import full, put

Json = dict[str, Any]

ODDITIES: list[tuple[str, Any]] = [
    ("spec.slo", {"percentile": None, "ttftMs": None}),
    ("spec.slo", None),
    ("spec.slo.unknown", 1),
    ("spec.template", {"kept": None, "list": [{"deep": 1}]}),
    ("spec.rollout.analysis", {}),
    ("spec.candidates[0].name", None),
    ("spec.candidates[0].exitLayers", [4, 4]),
    ("spec.candidates[0].exitLayers", [None]),
]
"""Nulls, unknown fields, nested defaults."""


def objects() -> Iterator[tuple[str, Json]]:
    for base, path, refused, admitted, _ in rules.CASES:
        for value in (refused, admitted):
            yield f"{path} = {value!r}", put(rules.BASES[base](), path, value)
    for base, path, schema, bound in constraints.BOUNDED:
        make = constraints.ROOTS[base][1]
        yield f"{path} beyond {bound}", put(make(), path, constraints.beyond(schema, bound))
        if schema["type"] == "integer":
            yield f"{path} at {bound}", put(make(), path, schema[bound])
    for base, path in constraints.REQUIRED:
        yield f"{path} missing", put(constraints.ROOTS[base][1](), path, ...)
    for path, value in ODDITIES:
        yield f"{path} = {value!r}", put(full(), path, value)


def by_server(api: client.CustomObjectsApi, obj: Json) -> tuple[Json | None, str]:
    """The stored spec, or why there is none."""
    obj = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "namespace"}}
    plural = crds()[obj["kind"]].plural
    try:
        created = api.create_namespaced_custom_object(GROUP, VERSION, "default", plural, obj, dry_run="All")
    except client.ApiException as error:
        return None, str(json.loads(error.body)["message"])
    return created["spec"], ""


def by_us(obj: Json) -> tuple[Json | None, str]:
    try:
        return admit(obj)["spec"], ""
    except Invalid as invalid:
        return None, str(invalid)


def main() -> int:
    config.load_kube_config()
    api = client.CustomObjectsApi()
    compared, different = 0, 0
    for label, obj in objects():
        (theirs, their_reason), (ours, our_reason) = by_server(api, obj), by_us(obj)
        compared += 1
        if theirs != ours:
            different += 1
            print(f"{label}\n  server: {theirs or their_reason}\n  ours: {ours or our_reason}")
    print(f"{compared} objects compared, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
