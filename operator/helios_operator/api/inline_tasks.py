"""The tasks that a spec holds itself: what is wrong with them that no schema says, and their document.

Called by `api.validation` on behalf of both ports, and by whoever hands them to Jobs and pods. The CRD bounds
their sizes; whether RE2 takes a pattern, or a schema is one, no rule there can tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from helios_contract import task_file
from helios_contract.problems import Problem
from helios_contract.task_file import WrongTasks

FIELD = "spec.profiling.tasks.inline"


def problems(admitted: Mapping[str, Any]) -> list[Problem]:
    """Of an object that the schema admits."""
    inline = ((admitted["spec"].get("profiling") or {}).get("tasks") or {}).get("inline")
    if inline is None:
        return []
    try:
        task_file.checked(inline, FIELD)
    except WrongTasks as wrong:
        return list(wrong.problems)
    return []


def document(inline: Sequence[Mapping[str, Any]]) -> str:
    """What Jobs and pods read."""
    return json.dumps(list(inline), ensure_ascii=False)
