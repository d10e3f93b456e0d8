"""The CRDs as Kubernetes would take them: a known schema, bounded sizes, rules that every server reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
from helios_operator.api.cel import holds
from helios_operator.api.crds import Crd, crds
from helios_operator.api.rules import broken_rules

from tests.manifests import NEWEST, OLDEST

ALL = sorted(crds().values(), key=lambda crd: crd.kind)

FREE = ("apiVersion", "kind", "metadata")

NOT_EVERYWHERE = re.compile(
    r"\.\?|orValue|optional|quantity\(|url\(|isURL|ip\(|cidr\(|format\(|\.find|isSorted|indexOf|sets\.|\bnull\b"
)
"""Parts of CEL that some supported server, or the library of one machine, lacks or reads differently."""


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        if path != "object" or name not in FREE:
            yield from nodes(field, f"{path}.{name}")
    for below in ("items", "additionalProperties"):
        if isinstance(schema.get(below), dict):
            yield from nodes(schema[below], f"{path}[]")


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_crd_is_a_custom_resource_definition(crd: Crd, version: str) -> None:
    kubernetes_validate.validate(crd.document, version, strict=True)


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_sizes_are_bounded_so_that_rules_stay_cheap(crd: Crd) -> None:
    for path, schema in nodes(crd.schema, "object"):
        if schema["type"] == "array":
            assert "maxItems" in schema, path
            assert "x-kubernetes-list-type" in schema, path
        if schema["type"] == "string":
            assert {"maxLength", "enum", "format"} & schema.keys(), path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_every_field_is_described(crd: Crd) -> None:
    """`kubectl explain` tells of each; of kind and metadata the server does."""

    def named(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
        for name, field in schema.get("properties", {}).items():
            yield f"{path}.{name}", field.get("description", "")
            yield from named(field, f"{path}.{name}")
        for below in ("items", "additionalProperties"):
            if isinstance(schema.get(below), dict):
                yield from named(schema[below], f"{path}[]")

    fields = {
        path: words
        for part in ("spec", "status")
        for path, words in named(crd.schema["properties"][part], part)
    }
    assert len(fields) > 10
    assert [path for path, words in fields.items() if not words.rstrip().endswith(".")] == []
    assert all(crd.schema["properties"][part].get("description") for part in ("spec", "status"))


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_numbers_are_integers_and_specs_are_bounded(crd: Crd) -> None:
    for path, schema in nodes(crd.schema["properties"]["spec"], "spec"):
        assert schema["type"] != "number", path
        assert "pattern" not in schema, f"{path}: Python and Go read patterns differently; write a rule"
        if schema["type"] == "integer":
            assert "minimum" in schema, path


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_names_need_no_escaping_in_rules(crd: Crd) -> None:
    reserved = {
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
    }
    reserved |= {"import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}
    for path, _ in nodes(crd.schema, "object"):
        name = path.rpartition(".")[2].rstrip("[]")
        assert name not in reserved, path
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name), path


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_rules_keep_to_what_every_server_evaluates(crd: Crd) -> None:
    for path, schema in nodes(crd.schema, "object"):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert not NOT_EVERYWHERE.search(rule["rule"]), (path, rule["rule"])
            assert set(rule) == {"rule", "message"}, path
            assert len(rule["message"]) <= 2048, path


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_a_default_keeps_the_rules_before_its_own_fields_are_filled_in(crd: Crd) -> None:
    """A server checks the bare default when the CRD is created, and refuses the CRD."""
    for path, schema in nodes(crd.schema, "object"):
        if "default" in schema:
            assert list(broken_rules(schema, schema["default"], path=path)) == []


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_nothing_inside_a_list_or_a_map_has_a_default(crd: Crd) -> None:
    """Tools that compare what is stored with what was written fill in the defaults of fields, not of
    items: such an object would differ for ever. The types hold these defaults."""
    assert [
        path for path, schema in nodes(crd.schema, "object") if "[]" in path and "default" in schema
    ] == []


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_a_crd_is_found_by_its_short_names(crd: Crd) -> None:
    assert crd.document["metadata"]["name"] == f"{crd.plural}.helios.dev"
    assert crd.short_names
    assert "helios" in crd.document["spec"]["names"]["categories"]


def test_the_status_and_the_scale_are_subresources() -> None:
    version = crds()["HeliosDeployment"].document["spec"]["versions"][0]
    assert set(version["subresources"]) == {"status", "scale"}
    for crd in ALL:
        assert "status" in crd.document["spec"]["versions"][0]["subresources"]


@pytest.mark.parametrize("crd", ALL, ids=lambda crd: crd.kind)
def test_printer_columns_show_fields_that_exist(crd: Crd) -> None:
    known = {path.replace("object.", ".", 1) for path, _ in nodes(crd.schema, "object")}
    known |= {".metadata.creationTimestamp"}
    for column in crd.document["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"])
        assert path in known, column["name"]


def test_a_rule_that_cannot_be_evaluated_does_not_hold() -> None:
    outcome = holds("self.absent > 1", {"present": 1})
    assert not outcome.holds
    assert "absent" in outcome.error


def test_a_rule_that_does_not_compile_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="Syntax error"):
        holds("self.a ==", {})
