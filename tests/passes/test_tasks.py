"""The tasks that a spec gives, as both runtimes see them."""

from __future__ import annotations

import json

from helios_contract import tasks
from helios_operator.api.types import ConfigMapRef, TaskSource
from helios_operator.passes.tasks import seen, text_of

TASK = {"name": "sum", "prompt": "2 + 2 =", "expect": {"contains": "4"}}
INLINE = TaskSource(inline=(TASK,))
MINE = TaskSource(config_map_ref=ConfigMapRef("mine", "t.yaml"))


def test_none_are_none() -> None:
    assert seen(None, None) is None


def test_inline_and_a_config_map_with_the_same_are_the_same() -> None:
    found, other = seen(INLINE, None), seen(MINE, json.dumps([TASK]))
    assert found == other
    assert found is not None
    assert (found.digest, found.tasks, found.problem) == (tasks.digest(tasks.from_document([TASK])), 1, "")
    assert text_of(MINE, "tasks: []") == "tasks: []"


def test_what_cannot_be_read_is_named_and_has_no_digest() -> None:
    missing, broken = seen(MINE, None), seen(MINE, "tasks:\n- {name: a, prompt: x, expect: {regex: '('}}")
    assert missing is not None
    assert missing.digest == ""
    assert missing.problem == "ConfigMap mine does not exist, or holds nothing under t.yaml"
    assert broken is not None
    assert broken.digest == ""
    assert "ConfigMap mine: tasks[0].expect.regex: is no regular expression of RE2" in broken.problem


def test_pods_and_jobs_are_given_the_tasks_alone_however_long_the_text_is() -> None:
    """A ConfigMap may hold 1 MiB, and what is copied stands beside another document in one."""
    notes = "".join(f"# note {index} of why this is asked\n" for index in range(25_000))
    text = f"{notes}tasks:\n- {json.dumps(TASK)}\n"
    assert len(text) > 800_000
    assert seen(MINE, text) == seen(INLINE, None)
    copied = text_of(MINE, text)
    assert copied == text_of(INLINE, None) == tasks.document(tasks.from_document([TASK]))
    assert seen(MINE, copied) == seen(MINE, text)
