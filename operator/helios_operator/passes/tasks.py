"""The tasks that a spec gives, inline or by a ConfigMap, read: their digest, or what is wrong with them.

Called by every runtime's `observe`, and by whoever hands them to Jobs and pods as a file. A text is read once
as long as it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from helios_contract import task_file, tasks
from helios_contract.task_file import WrongTasks

from helios_operator.api import inline_tasks
from helios_operator.api.types import TaskSource
from helios_operator.decide.snapshot import TaskSet


def text_of(source: TaskSource, config_map: str | None) -> str:
    """What Jobs and pods read: the tasks alone, however long the text that gives them is. What cannot be read
    stays as it is, for whoever is to say so. `config_map`: the text under the key that the source names, None
    when there is none."""
    text = _given(source, config_map)
    return _read(text, "").document or text


def seen(source: TaskSource | None, config_map: str | None) -> TaskSet | None:
    """None where the spec gives no tasks."""
    if source is None:
        return None
    ref = source.config_map_ref
    if ref is not None and config_map is None:
        return TaskSet(problem=f"ConfigMap {ref.name} does not exist, or holds nothing under {ref.key}")
    where = f"ConfigMap {ref.name}" if ref else "profiling.tasks.inline"
    return _read(_given(source, config_map), where).seen


def _given(source: TaskSource, config_map: str | None) -> str:
    return inline_tasks.document(source.inline) if source.config_map_ref is None else config_map or ""


@dataclass(frozen=True)
class _Text:
    """`document`: of its tasks; "" where it cannot be read."""

    seen: TaskSet
    document: str = ""


@lru_cache(maxsize=64)
def _read(text: str, where: str) -> _Text:
    try:
        found = task_file.read(text, where)
    except WrongTasks as wrong:
        return _Text(TaskSet(problem=f"{where}: {'; '.join(map(str, wrong.problems))}"))
    return _Text(TaskSet(tasks.digest(found), len(found)), tasks.document(found))
