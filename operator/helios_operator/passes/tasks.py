"""The tasks that a spec gives, inline or by a ConfigMap, read: their digest, or what is wrong with them.

Called by every runtime's `observe`, and by whoever hands them to Jobs and pods as a file. A text is read once
as long as it stays.
"""

from __future__ import annotations

from functools import lru_cache

from helios_contract import task_file, tasks
from helios_contract.task_file import WrongTasks

from helios_operator.api import inline_tasks
from helios_operator.api.types import TaskSource
from helios_operator.decide.snapshot import TaskSet


def text_of(source: TaskSource, config_map: str | None) -> str:
    """What a Job reads. `config_map`: the text under the key that the source names, None when there is
    none."""
    return inline_tasks.document(source.inline) if source.config_map_ref is None else config_map or ""


def seen(source: TaskSource | None, config_map: str | None) -> TaskSet | None:
    """None where the spec gives no tasks."""
    if source is None:
        return None
    ref = source.config_map_ref
    if ref is not None and config_map is None:
        return TaskSet(problem=f"ConfigMap {ref.name} does not exist, or holds nothing under {ref.key}")
    where = f"ConfigMap {ref.name}" if ref else "profiling.tasks.inline"
    return _read(text_of(source, config_map), where)


@lru_cache(maxsize=64)
def _read(text: str, where: str) -> TaskSet:
    try:
        found = task_file.read(text, where)
    except WrongTasks as wrong:
        return TaskSet(problem=f"{where}: {'; '.join(map(str, wrong.problems))}")
    return TaskSet(tasks.digest(found), len(found))
