"""Every CEL rule refuses what it is for, says what to do, and lets its neighbours pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from helios_operator.api.crds import crds
from helios_operator.api.validation import Invalid, admit

from tests.api.objects import full, minimal, model, put, quality_profile, tasks_profile, timing_profile

BASES = {
    "minimal": minimal,
    "full": full,
    "model": model,
    "timing": timing_profile,
    "quality": quality_profile,
    "tasks": tasks_profile,
}

TWINS = [
    {"name": "a", "uri": "hf://x/y", "revision": "1", "exits": "builtin://general"},
    {"name": "b", "uri": "hf://x/y", "revision": "1", "exits": "builtin://general"},
]
SIBLINGS = [
    {"name": "a", "uri": "hf://x/y"},
    {"name": "b", "uri": "hf://x/y", "exits": "builtin://general"},
    {"name": "c", "uri": "hf://x/y", "revision": "2"},
]
SELECTOR = {"candidateSelector": {"matchLabels": {"task": "chat"}}}
BUDGET, BOUNDS = "spec.limits.layerBudget", {"min": 4, "max": 4}
WINDOW = "spec.reassessment.maintenanceWindow"
URI = "spec.candidates[0].uri"
EXITS = "spec.candidates[0].exits"
PROMPTS = "spec.profiling.prompts"
TASKS, PROBE = "spec.profiling.tasks", "spec.reassessment.taskProbe"
TASK = {"name": "sum", "prompt": "2 + 2 =", "expect": {"contains": "4"}}
CHAT = [{"role": "user", "content": "2 + 2?"}]
ASKED = {"tasks": {"inline": [TASK]}}

Case = tuple[str, str, Any, Any, str]

CASES: list[Case] = [
    # base, path, refused, admitted, start of the message
    ("minimal", "metadata.name", "x" * 41, "x" * 40, "metadata.name is longer than 40"),
    ("minimal", "metadata.name", "Chat", "chat-2", "metadata.name does not fit"),
    ("minimal", "metadata.name", "2chat", "c", "metadata.name does not fit"),
    ("minimal", "metadata.name", "a.b", "a-b", "metadata.name does not fit"),
    ("minimal", "metadata.name", "a-", "a1", "metadata.name does not fit"),
    (
        "minimal",
        "spec",
        {"candidates": SIBLINGS, **SELECTOR},
        {"candidates": SIBLINGS},
        "exactly one of candidates",
    ),
    ("minimal", "spec", {}, SELECTOR, "exactly one of candidates"),
    ("full", "spec.selection.candidate", "smal", "large", "selection.candidate is not among"),
    ("minimal", "spec.candidates", TWINS, SIBLINGS, "two candidates have the same"),
    (
        "minimal",
        "spec.service",
        {"port": 8000, "httpPort": 8000},
        {"port": 8000, "httpPort": 0},
        "service.httpPort is the same",
    ),
    ("minimal", "spec.service", {"httpPort": 8033}, {"port": 8000}, "service.httpPort is the same"),
    (
        "minimal",
        "spec.service",
        {"tls": {"secretName": "s"}, "auth": {"secretName": "s"}},
        {"tls": {"secretName": "s"}, "auth": {"secretName": "t"}},
        "service.auth.secretName names a Secret of service.tls",
    ),
    (
        "minimal",
        "spec.service",
        {"tls": {"secretName": "s", "clientCASecretName": "t"}, "auth": {"secretName": "t"}},
        {"auth": {"secretName": "t"}},
        "service.auth.secretName names a Secret of service.tls",
    ),
    ("minimal", "spec.candidates[0].name", "Small", "small.v2", "not a valid name"),
    ("minimal", "spec.candidates[0].name", "-small", "2-small", "not a valid name"),
    ("minimal", URI, "meta/llama", "hf://meta/llama", "not a model's address"),
    ("minimal", URI, "hf://a/b/c", "hf://gpt2", "not a model's address"),
    ("minimal", URI, "pvc://models", "pvc://models/small", "not a model's address"),
    ("minimal", URI, "file://models/small", "file:///models/small", "not a model's address"),
    ("minimal", URI, "builtin://general", "hf://a.b/c_d-e", "not a model's address"),
    ("minimal", URI, "https://example.com/model", "hf://example/model", "not a model's address"),
    ("minimal", URI, "hf://a/b\0", "hf://a/b", "not a model's address"),
    ("minimal", URI, "hf://a/b\n", "hf://a/b", "not a model's address"),
    ("minimal", URI, "pvc://models/../secrets", "pvc://models/..secrets", "a path with . or .. in it"),
    ("minimal", URI, "file:///models/..", "file:///models/v1..2", "a path with . or .. in it"),
    ("minimal", URI, "file:///models/./a", "file:///models/.a", "a path with . or .. in it"),
    ("full", "spec.candidates[0].revision", "a b", "refs/pr/1", "not a revision"),
    ("minimal", EXITS, "general", "builtin://general", "not an address of exit heads"),
    ("minimal", EXITS, "builtin://a/b", "pvc://heads/chat", "not an address of exit heads"),
    ("minimal", EXITS, "file:///heads/../x", "file:///heads/x", "a path with . or .. in it"),
    ("minimal", "spec.candidates[0].layerBudget", {"min": 5, "max": 4}, BOUNDS, "min is above max"),
    ("minimal", BUDGET, {"min": 5, "max": 4}, BOUNDS, "min is above max"),
    ("minimal", BUDGET, {"min": 9, "max": 8}, {"min": 9}, "min is above max"),
    (
        "minimal",
        "spec.selection",
        {"policy": "Pinned"},
        {"policy": "Advisory"},
        "policy Pinned and candidate",
    ),
    (
        "minimal",
        "spec.selection",
        {"candidate": "small"},
        {"policy": "Pinned", "candidate": "small"},
        "policy Pinned and candidate",
    ),
    ("minimal", "spec.slo", {"e2eLatencyMs": 9, "ttftMs": 1}, {"e2eLatencyMs": 9}, "e2eLatencyMs stands for"),
    (
        "minimal",
        "spec.slo",
        {"e2eLatencyMs": 9, "itlMs": 1},
        {"itlMs": 1, "ttftMs": 1},
        "e2eLatencyMs stands",
    ),
    (
        "minimal",
        "spec.workload",
        {"concurrency": 1, "requestRate": 1},
        {"requestRate": 1},
        "concurrency and requestRate",
    ),
    (
        "minimal",
        "spec.limits",
        {"maxContextTokens": 639},
        {"maxContextTokens": 640},
        "limits.maxContextTokens is below workload",
    ),
    (
        "minimal",
        "spec",
        {"candidates": SIBLINGS, "limits": {"maxContextTokens": 100}, "workload": {"isl": 100, "osl": 1}},
        {"candidates": SIBLINGS, "limits": {"maxContextTokens": 101}, "workload": {"isl": 100, "osl": 1}},
        "limits.maxContextTokens is below workload",
    ),
    (
        "minimal",
        PROMPTS,
        {"live": {"consent": True}, "configMapRef": {"name": "a", "key": "b"}, "inline": ["text"]},
        {"live": {"consent": True}, "configMapRef": {"name": "a", "key": "b"}},
        "more than one source of given prompts",
    ),
    (
        "minimal",
        PROMPTS,
        {"configMapRef": {"name": "a", "key": "b"}, "inline": ["text"]},
        {"live": {"consent": True}, "inline": ["text"]},
        "more than one source of given prompts",
    ),
    (
        "minimal",
        f"{PROMPTS}.live",
        {"consent": False},
        {"consent": True},
        "live prompts are your users' text",
    ),
    ("minimal", f"{PROMPTS}.inline", ["text", " \t\n"], ["text", " t"], "the prompt is blank"),
    ("minimal", f"{PROMPTS}.inline", ["x" * 8192] * 123, ["x" * 8192] * 122, "the prompts have more than"),
    ("minimal", f"{PROMPTS}.inline", ["😀" * 8192] * 31, ["😀" * 8192] * 30, "the prompts have more than"),
    (
        "minimal",
        "spec",
        {"candidates": SIBLINGS, "slo": {"minTaskPercent": 90}},
        {"candidates": SIBLINGS, "slo": {"minTaskPercent": 90}, "profiling": ASKED},
        "slo.minTaskPercent needs tasks",
    ),
    (
        "minimal",
        "spec",
        {"candidates": SIBLINGS, "profiling": ASKED, "reassessment": {"taskProbe": {"every": "1m"}}},
        {
            "candidates": SIBLINGS,
            "profiling": ASKED,
            "reassessment": {"taskProbe": {"every": "1m"}},
            "slo": {"minTaskPercent": 90},
        },
        "reassessment.taskProbe tells whether",
    ),
    (
        "minimal",
        TASKS,
        {"inline": [TASK], "configMapRef": {"name": "a", "key": "b"}},
        {"configMapRef": {"name": "a", "key": "b"}},
        "exactly one source of tasks",
    ),
    ("minimal", TASKS, {}, {"inline": [TASK]}, "exactly one source of tasks"),
    (
        "minimal",
        f"{TASKS}.inline",
        [{**TASK, "messages": CHAT}],
        [{"name": "sum", "messages": CHAT, "expect": {"contains": "4"}}],
        "a task is asked by exactly one",
    ),
    (
        "minimal",
        f"{TASKS}.inline",
        [{"name": "sum", "expect": {"contains": "4"}}],
        [TASK],
        "a task is asked by exactly one",
    ),
    (
        "minimal",
        f"{TASKS}.inline",
        [{**TASK, "expect": {"equal": "4"}}],
        [{**TASK, "expect": {"number": {"value": 4}}}],
        "nothing is expected of the answer",
    ),
    ("full", f"{PROBE}.every", "10 minutes", "10m", "not a duration from 1s"),
    ("full", f"{PROBE}.every", "0s", "1s", "not a duration from 1s"),
    ("tasks", "spec.tasks", ..., tasks_profile()["spec"]["tasks"], "kind Tasks and the field tasks"),
    ("tasks", "spec.kind", "Quality", "Tasks", "kind Tasks and the field tasks"),
    ("minimal", "spec.reassessment", {"auditPercent": 0}, {"auditPercent": 1}, "trigger Audit needs"),
    (
        "minimal",
        "spec.reassessment",
        {"auditPercent": 0},
        {"auditPercent": 0, "trigger": "Confidence"},
        "trigger Audit needs",
    ),
    (
        "minimal",
        "spec.reassessment",
        {"confidenceThresholdPercent": 50},
        {"confidenceThresholdPercent": 50, "trigger": "Confidence"},
        "confidenceThresholdPercent is of",
    ),
    ("minimal", "spec.reassessment.interval", "6 h", "6h", "not a duration from 1s"),
    ("minimal", "spec.reassessment.interval", "", "1.5h", "not a duration from 1s"),
    ("minimal", "spec.reassessment.interval", "999ms", "1s", "not a duration from 1s"),
    ("minimal", "spec.reassessment.interval", "8760h1s", "8760h", "not a duration from 1s"),
    ("minimal", "spec.reassessment.interval", "-5m", "1h30m10s", "not a duration from 1s"),
    ("minimal", "spec.reassessment.cooldown", "soon", "0s", "not a duration up to"),
    ("minimal", "spec.reassessment.cooldown", "9000h", "500ms", "not a duration up to"),
    ("minimal", "spec.reassessment.cooldown", "99999999999999999999h", "10s", "not a duration up to"),
    ("full", f"{WINDOW}.duration", "0s", "30m", "not a duration from 1s"),
    ("full", f"{WINDOW}.schedule", "0 2 * *    ", "0 2 * * *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "0 24 * * *", "0 23 * * *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "60 2 * * *", "*/15 2 * * *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "0 2 32 * *", "0 2 1,15,31 * *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "0 2 * 13 *", "0 2 * 1-6/2 *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "0 2 * * 8", "0 2 * * 0-7", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "@midnight", "0 0 * * *", "not a schedule"),
    ("full", f"{WINDOW}.schedule", "0 2 * * MON", "0 2 * * 1", "not a schedule"),
    (
        "full",
        "spec.rollout.analysis",
        {"count": 2, "failureLimit": 2},
        {"count": 3},
        "failureLimit is not below",
    ),
    ("full", "spec.rollout.analysis.interval", "0s", "1s", "not a duration from 1s"),
    ("full", "spec.modelCache.mountPath", "models", "/models", "not an absolute path"),
    ("full", "spec.modelCache.mountPath", "/a:ro", "/a", "not an absolute path"),
    ("model", "metadata.name", "x" * 41, "x" * 40, "metadata.name is longer than 40"),
    ("model", "spec.uri", "gguf://x", "file:///x", "not a model's address"),
    ("model", "spec.uri", "file:///x/../y", "file:///y", "a path with . or .. in it"),
    ("model", "spec.revision", "?", "main", "not a revision"),
    ("model", "spec.exits", "heads", "hf://acme/heads", "not an address of exit heads"),
    ("model", "spec.exits", "pvc://c/..", "pvc://c/x", "a path with . or .. in it"),
    ("model", "spec.layerBudget", {"min": 2, "max": 1}, {"max": 1}, "min is above max"),
    ("timing", "spec.kind", "Quality", "Timing", "kind Timing and the field timing"),
    ("timing", "spec.timing", ..., timing_profile()["spec"]["timing"], "kind Timing and the field timing"),
    (
        "quality",
        "spec.quality",
        ...,
        quality_profile()["spec"]["quality"],
        "kind Quality and the field quality",
    ),
]


def problems_of(base: str, path: str, value: Any) -> list[str]:
    try:
        admit(put(BASES[base](), path, value))
    except Invalid as invalid:
        return [str(problem) for problem in invalid.problems]
    return []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}: {str(case[2])[:40]}")
def test_a_rule_refuses_and_says_why(case: Case) -> None:
    base, path, refused, _, message = case
    problems = problems_of(base, path, refused)
    start = message.removeprefix("metadata.name ")
    assert any(start in problem for problem in problems), problems
    assert all("; " in problem for problem in problems)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}: {str(case[3])[:40]}")
def test_a_rule_lets_its_neighbours_pass(case: Case) -> None:
    base, path, _, admitted, _ = case
    assert problems_of(base, path, admitted) == []


def test_the_identity_of_a_measurement_cannot_be_changed() -> None:
    before = admit(timing_profile())
    after = put(timing_profile(), "spec.timing.dtype", "float32")
    with pytest.raises(Invalid, match="is the identity of a measurement"):
        admit(after, before)
    assert admit({**timing_profile(), "status": {"phase": "Running"}}, before)
    assert admit(after) != before  # a new object may have any identity


def rules_of(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", ())
    for field in schema.get("properties", {}).values():
        yield from rules_of(field)
    if "items" in schema:
        yield from rules_of(schema["items"])


@pytest.mark.parametrize("kind", sorted(crds()))
def test_every_rule_is_in_the_table(kind: str) -> None:
    bases = {
        "HeliosDeployment": ("minimal", "full"),
        "HeliosModel": ("model",),
        "HeliosProfile": ("timing", "quality", "tasks"),
    }
    tried = [message for base, _, _, _, message in CASES if base in bases[kind]]
    tried.append("spec is the identity of a measurement")
    for rule in rules_of(crds()[kind].schema):
        assert any(rule["message"].startswith(start) for start in tried), rule["message"]


@pytest.mark.parametrize("kind", sorted(crds()))
def test_every_message_says_the_fix(kind: str) -> None:
    for rule in rules_of(crds()[kind].schema):
        problem, fix = rule["message"].split("; ", 1)
        assert problem
        assert fix
        assert not rule["message"].endswith(".")
