"""Objects for the rendering tests: a HeliosDeployment as a user writes it, parsed as the operator does."""

from __future__ import annotations

from typing import Any

from helios_contract.limits import Audit, Baseline, Limits
from helios_contract.serves import Bundle
from helios_operator.api import parse
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import Hardware, JobKind, JobSpec
from helios_operator.render import Manifest
from helios_operator.render.configmap import limits_config_map, prompts_config_map
from helios_operator.render.deployment import revision_deployment
from helios_operator.render.installation import Installation
from helios_operator.render.job import profiling_job
from helios_operator.render.networkpolicy import job_policy, server_policy
from helios_operator.render.pdb import disruption_budget
from helios_operator.render.secret import control_token_secret
from helios_operator.render.service import client_service, pods_service, replicas_service

CPU = Hardware(accelerator=None, accelerators=0, memory_mib=16000, cpu="test", cores=2, dtype="float16")
GPU_TEMPLATE = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"note": "mine"}},
    "spec": {
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": "helios-server",
                "image": "registry.internal/helios-server:cuda",
                "args": ["--energy-watts", "72"],
                "env": [{"name": "HF_HOME", "value": "/elsewhere"}, {"name": "MINE", "value": "1"}],
                "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "20Gi"}},
            },
            {"name": "sidecar", "image": "registry.internal/sidecar:1"},
        ],
    },
}


def installation(**changes: Any) -> Installation:
    values = {
        "server_image": "helios-server:0.1.0",
        "operator_namespace": "helios-system",
        "operator_name": "helios",
    }
    return Installation(**(values | changes))


def deployment(name: str = "chat", **spec: Any) -> Deployment:
    """From the spec's JSON, over a minimal one."""
    candidates = [{"name": "small", "uri": "pvc://models/smollm2-135m", "exits": "builtin://general"}]
    metadata = {"name": name, "namespace": "team-a", "uid": "5c8f-01", "generation": 3}
    return parse.deployment(
        {"metadata": metadata, "spec": {"modelName": "chat", "candidates": candidates} | spec}
    )


def serving_limits(**changes: Any) -> Limits:
    values = {
        "generation": 4,
        "candidate": "small",
        "model_uri": "pvc://models/smollm2-135m",
        "model_revision": "4ab1c0d",
        "exits_uri": "builtin://general",
        "exits_digest": "sha256:1",
        "layer_budget": 24,
        "max_batch_size": 12,
        "memory_mib": 800,
        "max_queue_size": 64,
        "exit_layers": (24, 27),
        "audit": Audit(5, (Bundle("small", "builtin://general", "sha256:1"),), Baseline(0.5, 0.25)),
        "tokens_per_request": 640,
        "live_prompts": 32,
    }
    return Limits(**(values | changes))


def job_spec(kind: JobKind = JobKind.QUALITY, **changes: Any) -> JobSpec:
    values = {
        "name": "q-91aa7e000000",
        "kind": kind,
        "candidates": (
            Candidate("a", "pvc://models/a", "r1", (4, 8), "pvc://heads.v2/a"),
            Candidate("b", "pvc://models/a", "r1", (4, 8), "builtin://prose"),
        ),
        "head_kinds": ("affine",),
        "prompts_digest": "sha256:3333",
        "rows": ("q-91aa7e000000", "q-04d1f3000000"),
    }
    return JobSpec(**(values | changes))


def revision(hd: Deployment, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "number": 7,
        "limits": serving_limits(),
        "replicas": 1,
        "candidates": hd.spec.candidates,
        "hardware": CPU,
        "by": installation(),
    }
    return revision_deployment(hd, **(values | changes))


def everything(hd: Deployment) -> list[Manifest]:
    """One of each object that belongs to a HeliosDeployment; each kind of Job, each source of prompts."""
    by = installation(client_namespaces=("apps",), metrics_namespaces=("monitoring",))
    jobs = [profiling_job(hd, job_spec(kind, name=kind.value.lower()), CPU, by) for kind in JobKind]
    jobs.append(profiling_job(hd, job_spec(), CPU, by, "10.244.0.7:8034"))
    budgets = [disruption_budget(hd, "policy/v1")]
    return [
        limits_config_map(hd, 7, serving_limits()),
        prompts_config_map(hd),
        revision(hd, by=by),
        client_service(hd, None),
        client_service(hd, 7),
        replicas_service(hd, 7),
        pods_service(hd),
        control_token_secret(hd, "secret"),
        server_policy(hd, by),
        job_policy(hd),
        *jobs,
        *(budget for budget in budgets if budget),
    ]
