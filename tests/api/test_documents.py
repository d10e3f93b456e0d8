"""YAML as kubectl reads it, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_operator.api.documents import load, read
from helios_operator.api.problems import Invalid


def test_several_documents_and_empty_ones() -> None:
    assert load("---\na: 1\n---\n---\nb: 2\n", "f") == [{"a": 1}, {"b": 2}]


def test_times_stay_strings() -> None:
    assert load("at: 2026-01-01T00:00:00Z\nday: 2026-01-01", "f") == [
        {"at": "2026-01-01T00:00:00Z", "day": "2026-01-01"}
    ]


def test_anchors_and_merges_work() -> None:
    assert load("a: &a {x: 1}\nb: {<<: *a, y: 2}", "f") == [{"a": {"x": 1}, "b": {"x": 1, "y": 2}}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "f.yaml:3:2: "),
        ("a: 1\n\tb: 2\n", "indent with spaces"),
        ("a: 1\na: 2\n", "f.yaml:2:1: the key 'a' stands twice; "),
        ("a: b: c", "f.yaml:1:5: mapping values are not allowed here; "),
        ("a: !!python/object:os.system {}", "f.yaml:1:4: "),
        ("", "f.yaml: has no object in it; "),
        ("# only a comment", "f.yaml: has no object in it; "),
        ("a: \x00", "f.yaml: is not YAML"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(text, "f.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "model.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match="is not UTF-8 text"):
        read(binary)
    with pytest.raises(Invalid, match="No such file or directory"):
        read(tmp_path / "absent.yaml")
    with pytest.raises(Invalid, match="cannot be read"):
        read(tmp_path)
