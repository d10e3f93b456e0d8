"""JSON that somebody else wrote, also where there is much of it."""

from __future__ import annotations

import gc
import json
import threading

import pytest
from helios_server.models.json_file import NO_COLLECTIONS, parse_object, shown

ARRAYS, OBJECTS = ((b'{"a": [%s]}' % b",".join([each] * 50_000)) for each in (b"[]", b"{}"))


@pytest.mark.parametrize("content", [ARRAYS, OBJECTS], ids=["arrays", "objects"])
@pytest.mark.parametrize("unique", [False, True])
def test_no_garbage_is_looked_for_meanwhile(content: bytes, unique: bool) -> None:
    collections: list[str] = []
    gc.callbacks.append(lambda phase, info: collections.append(phase))
    try:
        parsed = parse_object(content, unique=unique)
        assert len(collections) <= 2  # one that is due begins, and ends, when all is read
    finally:
        gc.callbacks.pop()
    assert len(parsed["a"]) == 50_000
    assert gc.isenabled()
    with pytest.raises(ValueError, match="Expecting"):
        parse_object(content[:-1])
    assert gc.isenabled()


def test_the_collector_stays_off_until_the_last_thread_has_read() -> None:
    """Whoever came while it was off must not leave it off, nor set it going for those that still read."""
    with NO_COLLECTIONS:
        other = threading.Thread(target=parse_object, args=(OBJECTS,))
        other.start()
        other.join()
        assert not gc.isenabled()
    assert gc.isenabled()
    NO_COLLECTIONS.__enter__()
    with NO_COLLECTIONS:
        NO_COLLECTIONS.__exit__()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        parse_object(OBJECTS)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_of_a_large_value_the_beginning_is_written_and_no_more() -> None:
    cannot_be_written = object()
    for value in ([1] * 100 + [cannot_be_written], {"a": [{"b": [1] * 100}, cannot_be_written]}):
        assert shown(value).endswith("...")
        assert len(shown(value)) == 63


@pytest.mark.parametrize("value", [None, True, 1.5, "\ud800", [1, "b"], {"a": {"b": [None]}}, float("inf")])
def test_a_small_value_is_written_as_json_has_it(value: object) -> None:
    assert shown(value) == json.dumps(value)
