"""Every bound of every spec field: one step beyond is refused by name, the bound itself is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helios_operator.api.crds import crds
from helios_operator.api.validation import Invalid, Problem, admit

from tests.api.objects import full, minimal, model, put, quality_profile, tasks_profile, timing_profile

ROOTS = {
    "full": ("HeliosDeployment", full),
    "model": ("HeliosModel", model),
    "timing": ("HeliosProfile", timing_profile),
    "quality": ("HeliosProfile", quality_profile),
    "tasks": ("HeliosProfile", tasks_profile),
}

BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "enum", "minItems", "maxItems", "maxProperties")

Field = tuple[str, str, dict[str, Any]]


def spec_fields() -> Iterator[Field]:
    """Base object, path and schema of every field that a base object sets, lists by their first entry."""
    for base, (kind, make) in ROOTS.items():
        yield from fields_of(base, crds()[kind].schema["properties"]["spec"], make()["spec"], "spec")


def fields_of(base: str, schema: dict[str, Any], value: Any, path: str) -> Iterator[Field]:
    yield base, path, schema
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            yield from fields_of(base, schema["properties"][name], item, f"{path}.{name}")
    elif isinstance(value, list):
        yield from fields_of(base, schema["items"], value[0], f"{path}[0]")


FIELDS = list(spec_fields())
BOUNDED = [
    (base, path, schema, bound) for base, path, schema in FIELDS for bound in BOUNDS if bound in schema
]


def beyond(schema: dict[str, Any], bound: str) -> Any:
    limit = schema[bound]
    match bound:
        case "minimum":
            return limit - 1
        case "maximum":
            return limit + 1
        case "minLength":
            return "a" * (limit - 1)
        case "maxLength":
            return "a" * (limit + 1)
        case "enum":
            return "Neither"
        case "minItems":
            return []
        case "maxItems":
            return [example_item(schema["items"], i) for i in range(limit + 1)]
    return {f"key{i}": "a" for i in range(limit + 1)}


def example_item(schema: dict[str, Any], i: int) -> Any:
    if schema["type"] == "object":
        return {"name": f"n{i}", "uri": f"hf://a/m{i}"}
    return i + 1 if schema["type"] == "integer" else f"text{i}"


def problems_with(base: str, path: str, value: Any) -> tuple[Problem, ...]:
    try:
        admit(put(ROOTS[base][1](), path, value))
    except Invalid as invalid:
        return invalid.problems
    return ()


def blamed(base: str, path: str, value: Any) -> list[str]:
    return [problem.field for problem in problems_with(base, path, value)]


@pytest.mark.parametrize("bounded", BOUNDED, ids=lambda bounded: f"{bounded[1]} {bounded[3]}")
def test_beyond_a_bound_is_refused_by_name(bounded: Any) -> None:
    base, path, schema, bound = bounded
    assert path in blamed(base, path, beyond(schema, bound))


@pytest.mark.parametrize(
    "bounded",
    [b for b in BOUNDED if b[3] in ("minimum", "maximum") and b[2]["type"] == "integer"],
    ids=lambda bounded: f"{bounded[1]} {bounded[3]}",
)
def test_a_number_at_its_bound_is_not_out_of_range(bounded: Any) -> None:
    base, path, schema, bound = bounded
    problems = problems_with(base, path, schema[bound])
    assert not any("than the" in problem.problem for problem in problems), problems


@pytest.mark.parametrize("field", [f for f in FIELDS if f[2].get("type") != "object"], ids=lambda f: f[1])
def test_the_wrong_type_is_refused_by_name(field: Field) -> None:
    base, path, schema = field
    assert path in blamed(base, path, {} if schema["type"] != "array" else "text")


REQUIRED = [
    (base, f"{path}.{name}")
    for base, path, schema in FIELDS
    for name in schema.get("required", ())
    if "default" not in schema["properties"][name]
]


@pytest.mark.parametrize(("base", "path"), REQUIRED)
def test_what_is_required_is_missed_by_name(base: str, path: str) -> None:
    assert path in blamed(base, path, ...)


def test_the_base_objects_are_admitted_and_lack_no_field() -> None:
    for base, (kind, make) in ROOTS.items():
        admit(make())
        seen = {path for name, path, _ in FIELDS if name == base}
        assert seen
        assert kind in crds()
    alternatives = {
        "spec.candidateSelector",
        "spec.slo.e2eLatencyMs",
        "spec.workload.requestRate",
        "spec.profiling.prompts.configMapRef",
        "spec.profiling.prompts.inline",
        "spec.profiling.tasks.configMapRef",
    }
    assert (
        set(missing_fields(crds()["HeliosDeployment"].schema["properties"]["spec"], "spec")) == alternatives
    )


def missing_fields(schema: dict[str, Any], path: str) -> Iterator[str]:
    seen = {path for base, path, _ in FIELDS if base == "full"}
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}"
        if inner not in seen:
            yield inner
        else:
            yield from missing_fields(field, inner)


@pytest.mark.parametrize(
    ("path", "refused", "admitted"),
    [
        ("spec.candidateSelector", {"maxCandidates": 2}, {"matchLabels": {"a": "b"}, "maxCandidates": 16}),
        ("spec.candidateSelector", {"matchLabels": {}, "maxCandidates": 17}, {"matchLabels": {}}),
        ("spec.candidateSelector", {"matchLabels": {"a": "b" * 64}}, {"matchLabels": {"a": "b" * 63}}),
        ("spec.candidateSelector", {"matchLabels": {str(i): "" for i in range(17)}}, {"matchLabels": {}}),
    ],
)
def test_a_selector_in_place_of_candidates(path: str, refused: Any, admitted: Any) -> None:
    obj = put(minimal(), "spec.candidates", ...)
    with pytest.raises(Invalid, match=r"spec\.candidateSelector"):
        admit(put(obj, path, refused))
    admit(put(obj, path, admitted))


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    """A task that is one."""
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"name": "chat", "messages": messages, "expect": {"contains": "x"}}


@pytest.mark.parametrize(
    ("path", "refused", "admitted"),
    [
        ("spec.slo.e2eLatencyMs", 0, 8000),
        ("spec.workload.requestRate", 0, 100),
        ("spec.profiling.prompts.configMapRef", {"name": "a"}, {"name": "a", "key": "b"}),
        ("spec.profiling.prompts.inline", [], ["one"]),
        ("spec.profiling.prompts.inline", [""], ["one", "two"]),
        ("spec.profiling.prompts.inline", ["x" * 8193], ["x" * 8192]),
        ("spec.profiling.prompts.inline", ["x"] * 257, ["x"] * 256),
        ("spec.profiling.tasks.configMapRef", {"name": "a"}, {"name": "a", "key": "b"}),
        ("spec.profiling.tasks.inline", [chat(("tool", "x"))], [chat(("user", "x"))]),
        ("spec.profiling.tasks.inline", [chat(("user", ""))], [chat(("system", "x"), ("user", "x"))]),
        ("spec.profiling.tasks.inline", [chat(*[("user", "x")] * 33)], [chat(*[("user", "x")] * 32)]),
        ("spec.profiling.tasks.inline", [chat()], [chat(("assistant", "x"))]),
    ],
)
def test_the_alternatives_to_fields_of_the_full_object(path: str, refused: Any, admitted: Any) -> None:
    with pytest.raises(Invalid) as caught:
        admit(put(minimal(), path, refused))
    assert caught.value.problems[0].field.startswith(path)
    admit(put(minimal(), path, admitted))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.candidates", [{"name": "a", "uri": "hf://a/b"}, {"name": "a", "uri": "hf://a/c"}]),
        ("spec.candidates[0].exitLayers", [4, 8, 4]),
    ],
)
def test_what_may_stand_once_is_refused_when_it_stands_twice(path: str, value: Any) -> None:
    with pytest.raises(Invalid, match="stands twice"):
        admit(put(full(), path, value))
