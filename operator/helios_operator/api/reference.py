"""Writes docs/api.md from the CRDs and docs/conditions.md from the reasons: `python -m
helios_operator.api.reference`.

Run by whoever changes a schema or a reason; a test compares the committed pages with what this would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helios_operator.api.conditions import ConditionType
from helios_operator.api.crds import Crd, crds
from helios_operator.api.reasons import EVERY_REASON
from helios_operator.api.words import Where

Json = dict[str, Any]

_KINDS = ("HeliosDeployment", "HeliosModel", "HeliosProfile")

_API_INTRO = """# The API: {version}

Generated from `crds/` by `python -m helios_operator.api.reference`; do not edit. Durations are Go duration
strings (`90s`, `1h30m`); all other quantities are integers with the unit in the name. An object that breaks a
rule is refused with the rule's message, by the API server in a cluster and by `helios up` on one machine.
`examples/` has whole objects.
"""

_CONDITIONS_INTRO = """# Conditions and reasons

Generated from the reasons in code by `python -m helios_operator.api.reference`; do not edit. A condition's
message has the numbers; this page says what its reason means. A reason is listed under the first place where
it appears. Reasons are added, never renamed.
"""


def api_page() -> str:
    kinds = [crds()[kind] for kind in _KINDS]
    version = kinds[0].document["spec"]["group"] + "/" + kinds[0].document["spec"]["versions"][0]["name"]
    return "\n".join([_API_INTRO.format(version=version), *(_kind(crd) for crd in kinds)])


def conditions_page() -> str:
    types = ["## Types of a HeliosDeployment", "", "| type | True means |", "| --- | --- |"]
    types += [f"| {condition.value} | {condition.meaning} |" for condition in ConditionType]
    sections = [_reasons(where) for where in Where]
    return "\n".join([_CONDITIONS_INTRO, *types, "", *sections])


def _reasons(where: Where) -> str:
    rows = [
        f"| {reason.value} | {reason.sentence} | {', '.join(place.value for place in reason.where[1:])} |"
        for reason in EVERY_REASON
        if reason.where[0] is where
    ]
    title = f"## {where.value}: {where.place}" if where.place else f"## {where.value}"
    return "\n".join([title, "", "| reason | meaning | also in |", "| --- | --- | --- |", *rows, ""])


def _kind(crd: Crd) -> str:
    names = ", ".join(f"`{name}`" for name in crd.short_names)
    head = [f"## {crd.kind}", "", crd.schema["description"] + f" Short names: {names}.", ""]
    body = [part for name in ("spec", "status") for part in _section(crd, name)]
    rules = ["### Rules", "", *(f"- `{path}`: {message}" for path, message in _rules(crd.schema, "")), ""]
    return "\n".join([*head, *body, *rules])


def _section(crd: Crd, name: str) -> list[str]:
    schema = crd.schema["properties"][name]
    rows = [_row(path, field, required) for path, field, required in _fields(schema, "")]
    header = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    return [f"### {name}", "", schema.get("description", ""), "", *header, *rows, ""]


def _fields(schema: Json, path: str) -> Iterator[tuple[str, Json, bool]]:
    """Every field below a schema, depth first, with whether its parent requires it."""
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        yield inner, field, name in schema.get("required", ())
        yield from _fields(field, inner)
        if "items" in field:
            yield from _fields(field["items"], f"{inner}[]")
        if isinstance(field.get("additionalProperties"), dict):
            yield from _fields(field["additionalProperties"], f"{inner}.KEY")


def _row(path: str, field: Json, required: bool) -> str:
    default = field.get("default")
    shown = "required" if required else f"`{json.dumps(default)}`" if default not in (None, {}) else ""
    meaning = field.get("description", "")
    values = ", ".join(f"`{value}`" for value in field.get("enum", ()))
    return f"| `{path}` | {values or _type(field)} | {shown} | {meaning} |".replace("  ", " ")


def _type(field: Json) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    match field["type"]:
        case "integer" if low is not None and high is not None:
            return f"{low} to {high}"
        case "integer" if low is not None:
            return f"integer, {low} or more"
        case "array" if "properties" not in field["items"]:
            return f"list of {_type(field['items'])}"
        case "array":
            return f"list, up to {field['maxItems']}"
        case "object" if "additionalProperties" in field:
            return f"map to {_type(field['additionalProperties'])}"
        case "string" if field.get("format") == "date-time":
            return "time"
    return str(field["type"])


def _rules(schema: Json, path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path or "object", rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def main() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    (docs / "api.md").write_text(api_page(), encoding="utf-8")
    (docs / "conditions.md").write_text(conditions_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
