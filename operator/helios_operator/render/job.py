"""A profiling Job: one run of `helios profile`, whose result is its termination message.

Called by `apply` for StartJob; `job_spec` reads back what a Job was asked. It runs where the serving pods
would: the user's template without what only a server has, then `profiling.template` over it. A Job speaks to
no API and holds no account; live prompts it fetches from a serving pod's Control port with that port's token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from helios_operator.api.pod_template import DIRECTIVE
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import Hardware, JobKind, JobSpec
from helios_operator.render import (
    Manifest,
    accelerator,
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
_PROMPTS = "/etc/helios/prompts"
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
            # The operator deletes finished Jobs too, where the server ignores this.
            "ttlSecondsAfterFinished": profiling.ttl_seconds_after_finished,
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
        on_cpu=document.get("onCpu", False),
    )


def candidates_argument(candidates: Sequence[Candidate]) -> str:
    """What `helios profile --candidates` reads."""
    return json.dumps([_document(candidate) for candidate in candidates])


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
    workload, on_cpu = hd.spec.workload, _is_on_cpu(asked)
    device = "cpu" if on_cpu else accelerator.device(hd.spec.template)
    memory_mib = None if on_cpu and accelerator.accelerator(hd.spec.template) else hd.spec.limits.memory_mib
    return [
        *("helios", "profile"),
        *("--kind", asked.kind.value.lower()),
        *("--candidates", candidates_argument(asked.candidates)),
        *_prompts_arguments(asked, prompts_from),
        *(("--memory-mib", str(memory_mib)) if memory_mib else ()),
        *("--isl", str(workload.isl), "--osl", str(workload.osl)),
        *("--search", hd.spec.profiling.search_strategy),
        *("--device", device),
        *(("--dtype", hardware.dtype) if device == accelerator.device(hd.spec.template) else ()),
        *("--volumes", volumes.ROOT),
        *("--result", _RESULT),
        *("--output", "json"),
    ]


def _prompts_arguments(asked: JobSpec, prompts_from: str | None) -> list[str]:
    if asked.kind is not JobKind.QUALITY:
        return []
    if prompts_from is None:
        source = ["--prompts-file", f"{_PROMPTS}/{configmap.PROMPTS_KEY}"]
    else:
        source = ["--prompts-from", prompts_from, "--control-token-file", pod.TOKEN_FILE]
    return [*source, "--prompts-digest", asked.prompts_digest]


def _inputs(hd: Deployment, asked: JobSpec, prompts_from: str | None) -> list[tuple[str, str, Manifest]]:
    """Name, mount path and volume of what a Quality Job reads besides models."""
    if asked.kind is not JobKind.QUALITY:
        return []
    if prompts_from is not None:
        return [("control", pod.CONTROL, pod.secret_volume("control", names.control_token(hd.name)))]
    given = hd.spec.profiling.prompts.config_map_ref
    source = (given.name, given.key) if given else (names.prompts(hd.name), configmap.PROMPTS_KEY)
    return [("prompts", _PROMPTS, pod.config_volume("prompts", *source, configmap.PROMPTS_KEY))]


def _is_on_cpu(asked: JobSpec) -> bool:
    return asked.on_cpu or asked.kind is JobKind.INSPECT


def _from_serving(template: Mapping[str, Any], asked: JobSpec) -> Manifest:
    """The user's serving template for a pod that measures: same node, same image, nothing to serve with, the
    same devices if it needs them. Sidecars stay away: a Job ends when all of its containers have."""
    users = merge.pod_template(template)
    server = containers.named(users, containers.SERVER)
    users["spec"] = {field: value for field, value in users["spec"].items() if field not in _POD_SERVER_ONLY}
    if server:
        kept = {field: value for field, value in server.items() if field not in _SERVER_ONLY}
        if _is_on_cpu(asked):
            kept |= {"resources": accelerator.without(kept.get("resources") or {})}
        users["spec"]["containers"] = [kept | {"name": containers.PROFILE}]
    return users


def _encoded(asked: JobSpec) -> str:
    document = {
        "name": asked.name,
        "kind": asked.kind.value,
        "candidates": [_document(candidate) for candidate in asked.candidates],
        "headKinds": asked.head_kinds,
        "promptsDigest": asked.prompts_digest,
        "rows": asked.rows,
        "onCpu": asked.on_cpu,
    }
    return json.dumps(document, separators=(",", ":"))


def _document(candidate: Candidate) -> dict[str, Any]:
    """What says which model, and nothing of budgets."""
    document = {
        "name": candidate.name,
        "uri": candidate.uri,
        "revision": candidate.revision,
        "exits": candidate.exits,
        "exitLayers": list(candidate.exit_layers),
    }
    return {field: value for field, value in document.items() if value}


def _candidate(document: Mapping[str, Any]) -> Candidate:
    return Candidate(
        name=document["name"],
        uri=document["uri"],
        revision=document.get("revision"),
        exits=document.get("exits"),
        exit_layers=tuple(document.get("exitLayers", ())),
    )
