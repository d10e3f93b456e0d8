"""A revision: one Deployment, whose pods serve what its limits ConfigMap says.

Called by `apply` for CreateRevision only. The template of a revision that exists is never rendered again and
never patched, so that no upgrade of the operator and no change of limits restarts a pod; of a live revision
only replicas and annotations change. What is served is not in the template: it stands in the ConfigMap.
"""

from __future__ import annotations

from collections.abc import Sequence

from helios_contract.limits import Limits
from helios_proto import addresses

from helios_operator.api import ports
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import Hardware
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
    secrets,
    volumes,
)
from helios_operator.render.installation import Installation
from helios_operator.render.template_hash import template_hash

_LIMITS = "/etc/helios/limits"
_EXIT_SECONDS = 10
"""What a server needs to end once its streams have."""
_STARTUP_PERIOD_SECONDS = 5


def revision_deployment(
    hd: Deployment,
    number: int,
    limits: Limits,
    replicas: int,
    candidates: Sequence[Candidate],
    hardware: Hardware,
    by: Installation,
) -> Manifest:
    """`candidates`: those whose claims exist, mounted beside what `limits` names, so that a later change of
    heads or model within reach needs no new pods."""
    claims = volumes.claims((*volumes.served_uris(limits), *volumes.candidate_uris(candidates)))
    container = _container(hd, claims, _command(hd, hardware), by)
    template = _with_users(_template(hd, number, claims, container), hd)
    selector = labels.revision(hd.name, number)
    annotations = {labels.TEMPLATE_HASH: template_hash(hd)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(hd, names.revision(hd.name, number), selector, annotations),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": hd.spec.rollout.progress_deadline_seconds,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": _with_memory(template, limits),
        },
    }


def _command(hd: Deployment, hardware: Hardware) -> list[str]:
    """The whole line is `command`: what a user's template writes as `args` follows it, and the last word
    counts."""
    place = commands.Place(volumes.ROOT, pod.TOKEN_FILE, accelerator.device(hd.spec.template), hardware.dtype)
    http = ports.HTTP if hd.spec.serves_http else None
    at = commands.Listening(addresses.ANY, ports.GENERATION, ports.CONTROL, ports.METRICS, http)
    limits = f"{_LIMITS}/{configmap.LIMITS_KEY}"
    drain_seconds, context = hd.spec.rollout.drain.timeout_seconds, hd.spec.limits.max_context_tokens
    words = commands.serve(place, limits, hd.spec.model_name, at, drain_seconds, context)
    return ["helios", *words, *commands.access(secrets.access(hd))]


def _container(hd: Deployment, claims: Sequence[str], command: Sequence[str], by: Installation) -> Manifest:
    container = pod.container(hd, containers.SERVER, command, claims, by)
    container["volumeMounts"] += [pod.mount("limits", _LIMITS), pod.mount("control", pod.CONTROL)]
    container["volumeMounts"] += [pod.mount(each.volume, each.path) for each in secrets.mounted(hd)]
    container["ports"] = [
        {"name": name, "containerPort": number, "protocol": "TCP"}
        for name, number in ports.BY_NAME.items()
        if number != ports.HTTP or hd.spec.serves_http
    ]
    container |= _probes(hd.spec.rollout.progress_deadline_seconds)
    if seconds := hd.spec.rollout.drain.pre_stop_seconds:
        # Endpoints forget the pod while it still accepts; only then is it told to stop.
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(seconds)]}}}
    return container


def _probes(deadline_seconds: int) -> Manifest:
    """HTTP, with the gRPC health service's own truth. Liveness begins when the model is loaded: reading one
    keeps a process too busy to answer, and is no reason to start again."""
    tries = deadline_seconds // _STARTUP_PERIOD_SECONDS + 1
    return {
        "startupProbe": _probe("/readyz", _STARTUP_PERIOD_SECONDS, tries),
        "readinessProbe": _probe("/readyz", 2, 2),
        "livenessProbe": _probe("/healthz", 10, 6),
    }


def _probe(path: str, period_seconds: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _template(hd: Deployment, number: int, claims: Sequence[str], container: Manifest) -> Manifest:
    limits = names.revision(hd.name, number)
    extra = [
        # Whole: tasks may come to stand beside the document.
        {"name": "limits", "configMap": {"name": limits}},
        pod.secret_volume("control", names.control_token(hd.name)),
        *(pod.secret_volume(each.volume, each.secret) for each in secrets.mounted(hd)),
    ]
    drain = hd.spec.rollout.drain
    spec = pod.spec(hd, container, claims, extra)
    spec["terminationGracePeriodSeconds"] = drain.pre_stop_seconds + drain.timeout_seconds + _EXIT_SECONDS
    return {
        "metadata": {
            "labels": labels.common(hd.name) | labels.revision(hd.name, number),
            "annotations": {"kubectl.kubernetes.io/default-container": containers.SERVER},
        },
        "spec": spec,
    }


def _with_users(ours: Manifest, hd: Deployment) -> Manifest:
    """The user's template over ours, but for what a Deployment demands of its pods."""
    users = merge.pod_template(hd.spec.template)
    return merge.merged(merge.merged(ours, users), {"spec": {"restartPolicy": "Always"}})


def _with_memory(template: Manifest, limits: Limits) -> Manifest:
    """The scheduler should know of the memory that the server will use, unless the user says how much, or
    it is the accelerator's. A request and no limit: the engine keeps to its own."""
    resources = containers.named(template, containers.SERVER).get("resources") or {}
    said = "memory" in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    if said or accelerator.accelerator(template):
        return template
    asked = {"requests": {"memory": f"{limits.memory_mib}Mi"}}
    server = {"name": containers.SERVER, "resources": asked}
    return merge.merged(template, {"spec": {"containers": [server]}})
