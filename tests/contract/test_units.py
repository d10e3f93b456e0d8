"""Every number in a public dataclass of what the parts tell each other says what it counts: by its name, by a
docstring below the field, or (a knob of the policy) by its metadata."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = ["helios_contract", "helios_operator.api", "helios_operator.decide"]
MODULES = [f"helios_server.engine.{name}" for name in ("limits", "request", "telemetry")]
UNITS = {
    *("seconds", "ms", "us", "ns", "bytes", "mib", "joules", "milliwatts", "percent", "millibits", "milli"),
    *("tokens", "token", "layers", "layer", "rows", "requests", "request", "prompts", "replicas", "restarts"),
    *("cores", "accelerators", "texts", "millions"),
}
"""A word of the name that is one says what is counted, or what it is the ordinal of."""


def sources() -> list[Path]:
    folders = [Path(place) for name in PACKAGES for place in find_spec(name).submodule_search_locations]
    files = [Path(find_spec(name).origin) for name in MODULES]
    return sorted([*files, *(file for folder in folders for file in folder.rglob("*.py"))])


def public_dataclasses(tree: ast.Module) -> list[ast.ClassDef]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    return [each for each in classes if "dataclass" in map(_name, each.decorator_list)]


def unsaid(text: str) -> list[str]:
    """CLASS.FIELD of every number that does not say what it counts."""
    found = []
    for each in public_dataclasses(ast.parse(text)):
        for field, below in zip(each.body, [*each.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign):
                continue
            name = ast.unparse(field.target)
            words = {node.id for node in ast.walk(field.annotation) if isinstance(node, ast.Name)}
            said = UNITS & set(name.split("_")) or _is_docstring(below) or "_about(" in ast.unparse(field)
            if words & {"int", "float"} and not name.startswith("_") and not said:
                found.append(f"{each.name}.{name}")
    return found


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _is_docstring(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@pytest.mark.parametrize("path", sources(), ids=lambda path: "/".join(path.parts[-3:]))
def test_a_number_says_what_it_counts(path: Path) -> None:
    assert unsaid(path.read_text()) == []


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("size: int", False),
        ("size: int | None = None", False),
        ("sizes: tuple[float, ...] = ()", False),
        ("size: int\n    other: str", False),
        ("size_bytes: int", True),
        ("size: int\n    'Rows.'", True),
        ("size: str", True),
    ],
)
def test_what_counts_as_said(field: str, says: bool) -> None:
    assert (unsaid(f"@dataclass(frozen=True)\nclass A:\n    {field}\n") == []) is says
