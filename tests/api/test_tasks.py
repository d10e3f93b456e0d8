"""Tasks in the API: what no schema can say of them is named by field all the same, and rows come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from helios_contract import tasks
from helios_contract.codec import Malformed
from helios_contract.results import OptionPasses, Tasks
from helios_operator.api import parse, results, serialize
from helios_operator.api.identity import tasks_name
from helios_operator.api.rows import RowPhase, TasksIdentity, TasksRow
from helios_operator.api.types import Candidate
from helios_operator.api.validation import Invalid, admit
from helios_operator.errors import ResultError

from tests.api.objects import full, minimal, put

INLINE = "spec.profiling.tasks.inline"
TASK: dict[str, Any] = {"name": "sum", "prompt": "2 + 2 =", "expect": {"contains": "4"}}
IDENTITY = TasksIdentity("hf://acme/small-1b", "4ab1c0d", "sha256:2", 24, "sha256:3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expect", "field", "problem"),
    [
        ({"regex": "(?=x)"}, "regex", "is no regular expression of RE2"),
        ({"regex": "("}, "regex", "is no regular expression of RE2"),
        ({"equals": "  "}, "equals", "is empty"),
        ({"number": {}}, "number", "is no range"),
        ({"number": {"min": 2, "max": 1}}, "number", "min 2 is above max 1"),
        ({"number": {"value": "4"}}, "number.value", "'4' is not a number"),
        ({"number": {"valu": 4}}, "number.valu", "is not known here"),
        ({"jsonSchema": {"type": "objekt"}}, "jsonSchema.type", "is no JSON schema"),
        ({"jsonSchema": {"$ref": "https://x.org/y"}}, "jsonSchema.$ref", "leads nowhere here"),
        ({"jsonSchema": {}}, "jsonSchema", "is empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(
    expect: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(Invalid) as caught:
        admit(put(minimal(), INLINE, [TASK, {**TASK, "name": "two", "expect": expect}]))
    assert caught.value.admitted is not None  # the schema takes it: what serves is looked after
    fields = {found.field: found.problem for found in caught.value.problems}
    assert problem in fields[f"{INLINE}[1].expect.{field}"]


def test_more_than_the_bounds_is_refused() -> None:
    many = [{**TASK, "name": f"t{index}", "maxTokens": 1024} for index in range(65)]
    with pytest.raises(Invalid, match="ask for 66,560 tokens in all"):
        admit(put(minimal(), INLINE, many))
    admit(put(minimal(), INLINE, many[:64]))
    with pytest.raises(Invalid, match="stands twice"):
        admit(put(minimal(), INLINE, [TASK, TASK]))


def test_a_spec_s_tasks_are_those_of_a_file() -> None:
    source = parse.deployment(admit(full())).spec.profiling.tasks
    assert source is not None
    (task,) = tasks.from_document(source.inline)
    assert (task.name, task.max_tokens, task.expect.equals) == ("capital", 8, "4")
    assert task.expect.number == tasks.Number(value=4.0, tolerance=0.5)


def test_the_name_of_a_row_is_golden() -> None:
    """One that changes throws every measurement away."""
    assert tasks_name(IDENTITY) == "k-ea33967097fe"
    others = [
        replace(IDENTITY, layer_budget=25),
        replace(IDENTITY, weight_dtype="int8"),
        replace(IDENTITY, kv_cache_dtype="int8"),
        replace(IDENTITY, exits_digest=""),
        replace(IDENTITY, tasks_digest="sha256:4"),
        replace(IDENTITY, revision="5"),
        replace(IDENTITY, model_uri="hf://acme/small-2b"),
    ]
    assert len({tasks_name(each) for each in [IDENTITY, *others]}) == 8


@pytest.mark.parametrize(
    "row",
    [
        TasksRow("k-1", IDENTITY, RowPhase.PENDING),
        TasksRow("k-1", replace(IDENTITY, weight_dtype="int8"), RowPhase.COMPLETE, "", NOW, 9, "ff8"),
        TasksRow("k-1", replace(IDENTITY, exits_digest=""), RowPhase.FAILED, "no memory", NOW),
    ],
)
def test_a_row_is_admitted_and_comes_back(row: TasksRow) -> None:
    obj = serialize.profile(row)
    assert parse.profile_row(admit(obj)) == row
    assert obj.get("status", {}).get("tasks", {}).get("passed") == (9 if row.passes else None)


def test_bits_that_are_none_are_named() -> None:
    row = TasksRow("k-1", IDENTITY, RowPhase.COMPLETE, "", NOW, 9, "ff8")
    for passes in ("ff", "ff9", "xyz"):
        obj = put(serialize.profile(row), "status.tasks.passes", passes)
        with pytest.raises(Malformed, match=r"status\.tasks\.passes"):
            parse.profile_row(obj)


def test_a_job_s_passes_become_rows() -> None:
    candidates = {"a": Candidate("a", "hf://acme/small-1b", "4ab1c0d")}
    rows = (OptionPasses("a", "", 30, "ff8"), OptionPasses("a", "sha256:2", 24, "0f0", "int8", "auto"))
    found = Tasks(tasks_digest="sha256:3", tasks=9, rows=rows)
    full_depth, exit_ = results.tasks(found, candidates, "sha256:3", NOW)
    assert full_depth.identity == replace(IDENTITY, exits_digest="", layer_budget=30)
    assert exit_.identity == replace(IDENTITY, weight_dtype="int8")
    assert exit_.name == tasks_name(exit_.identity)
    assert (exit_.tasks, exit_.passes, exit_.phase) == (9, "0f0", RowPhase.COMPLETE)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (Tasks(tasks_digest="sha256:9", tasks=4, rows=(OptionPasses("a", "", 30, "f"),)), "other tasks"),
        (Tasks(tasks_digest="sha256:3", tasks=4, rows=()), "of no option"),
        (Tasks(tasks_digest="sha256:3", tasks=4, rows=(OptionPasses("b", "", 30, "f"),)), "asks b"),
        (Tasks(tasks_digest="sha256:3", tasks=4, rows=(OptionPasses("a", "", 30, "ff"),)), "no passes of 4"),
    ],
)
def test_what_was_not_asked_for_is_no_result(found: Tasks, problem: str) -> None:
    with pytest.raises(ResultError, match=problem):
        results.tasks(found, {"a": Candidate("a", "hf://acme/small-1b")}, "sha256:3", NOW)
