"""The fields of an object as paths, and what two objects make when one is laid over the other.

Used by `managers`. A step of a path is the name of a field, or the keys of an item in a list that is a map.
It knows of no manager.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from helios_operator.cluster.kinds import Kind

from tests.cluster.fake.plain import copied
from tests.cluster.fake.schema import SET, Schema

Step = str | tuple[tuple[str, Any], ...]
Path = tuple[Step, ...]


class Fields:
    """Of one kind."""

    def __init__(self, schema: Schema, kind: Kind) -> None:
        self._schema = schema
        self._kind = kind

    def leaves(self, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
        """Every field that holds no other field."""
        if isinstance(value, Mapping) and value and not self._schema.is_atomic(_names(path)):
            for key, item in value.items():
                yield from self.leaves(item, (*path, key))
        elif isinstance(value, list) and value and (keys := self._keys(path)):
            for item in value:
                step = _step(item, keys)
                if keys == SET:
                    yield (*path, step), item
                else:
                    yield from self.leaves(item, (*path, step))
        elif path:
            yield path, value

    def merged(self, under: Any, over: Any, path: Path = ()) -> Any:
        """`over` laid over `under`."""
        if isinstance(under, dict) and isinstance(over, Mapping) and not self._schema.is_atomic(_names(path)):
            laid = {key: self.merged(under.get(key), item, (*path, key)) for key, item in over.items()}
            return under | laid
        if isinstance(under, list) and isinstance(over, list) and (keys := self._keys(path)):
            known = {_step(item, keys): item for item in under}
            for item in over:
                step = _step(item, keys)
                known[step] = item if keys == SET else self.merged(known.get(step), item, (*path, step))
            return list(known.values())
        return copied(over)

    def without(self, value: Any, path: Path) -> Any:
        """Without the field at a path; what it leaves empty goes with it."""
        step, *rest = path
        if isinstance(value, dict) and step in value:
            if not rest:
                return {key: item for key, item in value.items() if key != step}
            below = self.without(value[str(step)], tuple(rest))
            return {
                key: below if key == step else item for key, item in value.items() if key != step or below
            }
        if isinstance(value, list):
            kept, key = [], len(path) == 2 and is_key(path)
            for item in value:
                if not _is_at(item, step) or (key and item.keys() - dict(step).keys()):
                    kept.append(item)  # an item keeps its keys as long as it holds anything else
                elif rest and not key and (below := self.without(item, tuple(rest))):
                    kept.append(below)
            return kept
        return value

    def _keys(self, path: Path) -> Any:
        return self._schema.list_kind(self._kind, _names(path))


def is_key(path: Path) -> bool:
    """Whether it is one of the fields by which an item is found."""
    return len(path) > 1 and isinstance(path[-2], tuple) and path[-1] in dict(path[-2])


def _names(path: Path) -> tuple[str, ...]:
    return tuple(step for step in path if isinstance(step, str))


def _step(item: Any, keys: Any) -> Step:
    if keys == SET:
        return (("", item),)
    return tuple((key, item.get(key)) for key in keys)


def _is_at(item: Any, step: Step) -> bool:
    if isinstance(step, str):
        return False
    if step[0][0] == "":
        return bool(item == step[0][1])
    return isinstance(item, dict) and all(item.get(key) == value for key, value in step)
