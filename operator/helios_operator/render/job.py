"""A profiling Job: one run of `helios profile`, whose result is its termination message.

Called by `apply` for StartJob; `job_spec` reads back what a Job was asked. It runs where the serving pods
would: the user's template without what only a server has, then `profiling.template` over it. A Job speaks to
no API and holds no account; live prompts it fetches from a serving pod's Control port with that port's token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from helios_contract.serves import Precision

from helios_operator.api.pod_template import DIRECTIVE
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import AskedOption, Hardware, JobKind, JobSpec
from helios_operator.render import (
    Manifest,
    accelerator,
    commands,
    configmap,
    containers,
    labels,
    merge,
    names,
    owner,
    pod,
    volumes,
)
from helios_operator.render.installation import Installation

_RESULT = "/dev/termination-log"
_UNREAD_SECONDS = 86400
"""How long a result waits for an operator, beyond the time that the user gives a finished Job."""
_PROMPTS = "/etc/helios/prompts"
_TASKS = "/etc/helios/tasks"
_SERVER_ONLY = (
    DIRECTIVE,
    "args",
    "command",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "startupProbe",
)
_POD_SERVER_ONLY = (
    DIRECTIVE,
    "automountServiceAccountToken",
    "containers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
)


def profiling_job(
    hd: Deployment, asked: JobSpec, hardware: Hardware, by: Installation, prompts_from: str | None = None
) -> Manifest:
    """`prompts_from`: host:port of the Control port that holds the frozen set `asked.prompts_digest`; None
    unless a Quality Job needs live prompts."""
    profiling = hd.spec.profiling
    template = _template(hd, asked, hardware, by, prompts_from)
    users = (_from_serving(hd.spec.template, asked), merge.pod_template(profiling.template))
    for patch in (*users, {"spec": {"restartPolicy": "Never"}}):
        template = merge.merged(template, patch)
    kind = {labels.COMPONENT: labels.PROFILE, labels.JOB_KIND: asked.kind.value}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": owner.metadata(hd, names.fitted(asked.name), kind, {labels.JOB_SPEC: _encoded(asked)}),
        "spec": {
            "backoffLimit": profiling.backoff_limit,
            "activeDeadlineSeconds": profiling.active_deadline_seconds,
            # The operator deletes finished Jobs, once it has read them; this is for those nobody reads.
            "ttlSecondsAfterFinished": profiling.ttl_seconds_after_finished + _UNREAD_SECONDS,
            "template": template,
        },
    }


def job_spec(job: Manifest) -> JobSpec:
    """What a Job was asked, from the annotation that `profiling_job` wrote."""
    document = json.loads(job["metadata"]["annotations"][labels.JOB_SPEC])
    return JobSpec(
        name=document["name"],
        kind=JobKind(document["kind"]),
        candidates=tuple(_candidate(each) for each in document["candidates"]),
        head_kinds=tuple(document["headKinds"]),
        prompts_digest=document["promptsDigest"],
        rows=tuple(document["rows"]),
        max_context_tokens=document.get("maxContextTokens", 0),
        on_cpu=document.get("onCpu", False),
        precisions=_precisions(document),
        tasks_digest=document.get("tasksDigest", ""),
        options=tuple(
            AskedOption(name, layers, Precision(weights, keys))
            for name, layers, weights, keys in document.get("options", ())
        ),
    )


def _template(
    hd: Deployment, asked: JobSpec, hardware: Hardware, by: Installation, prompts_from: str | None
) -> Manifest:
    claims = volumes.claims(volumes.candidate_uris(asked.candidates))
    container = pod.container(hd, containers.PROFILE, _command(hd, asked, hardware, prompts_from), claims, by)
    container |= {"terminationMessagePath": _RESULT, "terminationMessagePolicy": "FallbackToLogsOnError"}
    extra = _inputs(hd, asked, prompts_from)
    container["volumeMounts"] += [pod.mount(name, path) for name, path, _ in extra]
    return {
        "metadata": {"labels": labels.profiling(hd.name) | {"app.kubernetes.io/managed-by": labels.MANAGER}},
        "spec": pod.spec(hd, container, claims, [volume for _, _, volume in extra]),
    }


def _command(hd: Deployment, asked: JobSpec, hardware: Hardware, prompts_from: str | None) -> list[str]:
    place = commands.Place(volumes.ROOT, pod.TOKEN_FILE, accelerator.device(hd.spec.template), hardware.dtype)
    is_limited = not (commands.runs_on_cpu(asked) and accelerator.accelerator(hd.spec.template))
    given = f"{_PROMPTS}/{configmap.PROMPTS_KEY}"
    if asked.kind is JobKind.TASKS:
        given = f"{_TASKS}/{configmap.TASKS_KEY}"
    words = commands.profile(place, asked, hd, _RESULT, given, prompts_from, is_limited=is_limited)
    return ["helios", *words, "--output", "json"]


def _inputs(hd: Deployment, asked: JobSpec, prompts_from: str | None) -> list[tuple[str, str, Manifest]]:
    """Name, mount path and volume of what a Job reads besides models."""
    if asked.kind is JobKind.TASKS:
        ref = hd.spec.profiling.tasks.config_map_ref if hd.spec.profiling.tasks else None
        tasks = (ref.name, ref.key) if ref else (names.tasks(hd.name), configmap.TASKS_KEY)
        return [("tasks", _TASKS, pod.config_volume("tasks", *tasks, configmap.TASKS_KEY))]
    if asked.kind is not JobKind.QUALITY:
        return []
    if prompts_from is not None:
        return [("control", pod.CONTROL, pod.secret_volume("control", names.control_token(hd.name)))]
    given = hd.spec.profiling.prompts.config_map_ref
    source = (given.name, given.key) if given else (names.prompts(hd.name), configmap.PROMPTS_KEY)
    return [("prompts", _PROMPTS, pod.config_volume("prompts", *source, configmap.PROMPTS_KEY))]


def _from_serving(template: Mapping[str, Any], asked: JobSpec) -> Manifest:
    """The user's serving template for a pod that measures: same node, same image, nothing to serve with, the
    same devices if it needs them. Sidecars stay away: a Job ends when all of its containers have."""
    users = merge.pod_template(template)
    server = containers.named(users, containers.SERVER)
    users["spec"] = {field: value for field, value in users["spec"].items() if field not in _POD_SERVER_ONLY}
    if server:
        kept = {field: value for field, value in server.items() if field not in _SERVER_ONLY}
        if commands.runs_on_cpu(asked):
            kept |= {"resources": accelerator.without(kept.get("resources") or {})}
        users["spec"]["containers"] = [kept | {"name": containers.PROFILE}]
    return users


def _encoded(asked: JobSpec) -> str:
    document: dict[str, Any] = {
        "name": asked.name,
        "kind": asked.kind.value,
        "candidates": [_document(candidate) for candidate in asked.candidates],
        "headKinds": asked.head_kinds,
        "promptsDigest": asked.prompts_digest,
        "rows": asked.rows,
        "onCpu": asked.on_cpu,
    }
    if asked.precisions != (Precision(),):
        document["precisions"] = [[each.weight_dtype, each.kv_cache_dtype] for each in asked.precisions]
    if asked.kind is JobKind.TASKS:
        document["tasksDigest"] = asked.tasks_digest
        document["options"] = [
            [each.candidate, each.layer_budget, each.precision.weight_dtype, each.precision.kv_cache_dtype]
            for each in asked.options
        ]
    if asked.max_context_tokens:
        document["maxContextTokens"] = asked.max_context_tokens
    return json.dumps(document, separators=(",", ":"))


def _precisions(document: Mapping[str, Any]) -> tuple[Precision, ...]:
    """A Job that is older than they are measures the reference."""
    return tuple(Precision(*pair) for pair in document.get("precisions", ())) or (Precision(),)


def _document(candidate: Candidate) -> dict[str, Any]:
    """All by which a candidate is known again: more than the Job itself is told."""
    trusted = {"trustRemoteCode": True} if candidate.trust_remote_code else {}
    return commands.candidate_document(candidate) | trusted


def _candidate(document: Mapping[str, Any]) -> Candidate:
    return Candidate(
        name=document["name"],
        uri=document["uri"],
        revision=document.get("revision"),
        exits=document.get("exits"),
        exit_layers=tuple(document.get("exitLayers", ())),
        trust_remote_code=document.get("trustRemoteCode", False),
    )
