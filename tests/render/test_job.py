"""Profiling Jobs: what `helios profile` is told, where the result goes, and what of the serving pods they
keep."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from helios_contract.serves import PRECISIONS
from helios_operator.api.types import Candidate
from helios_operator.decide.snapshot import JobKind, JobSpec
from helios_operator.render import Manifest, labels
from helios_operator.render.job import job_spec, profiling_job
from hypothesis import given
from hypothesis import strategies as st

from tests.render import objects

_TEXT = st.text(min_size=1, max_size=12)
_LAYERS = st.lists(st.integers(1, 80), max_size=4).map(tuple)
_CANDIDATES = st.builds(
    Candidate,
    name=_TEXT,
    uri=_TEXT,
    revision=st.none() | _TEXT,
    exits=st.none() | _TEXT,
    exit_layers=_LAYERS,
    trust_remote_code=st.booleans(),
)
_JOBS = st.builds(
    JobSpec,
    name=st.just("t-1"),
    kind=st.sampled_from(JobKind),
    candidates=st.lists(_CANDIDATES, min_size=1, max_size=3).map(tuple),
    head_kinds=st.lists(_TEXT, max_size=2).map(tuple),
    prompts_digest=st.text(max_size=8),
    rows=st.lists(_TEXT, max_size=2).map(tuple),
    on_cpu=st.booleans(),
    max_context_tokens=st.integers(min_value=0),
    precisions=st.lists(st.sampled_from(PRECISIONS), min_size=1, unique=True).map(tuple),
)


def _job(
    kind: JobKind = JobKind.QUALITY, prompts_from: str | None = None, on_cpu: bool = False, **spec: Any
) -> Manifest:
    hd = objects.deployment(**spec)
    asked = replace(objects.job_spec(kind), on_cpu=on_cpu)
    return profiling_job(hd, asked, objects.CPU, objects.installation(), prompts_from)


def _container(job: Manifest) -> Manifest:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _options(job: Manifest) -> dict[str, str]:
    command = _container(job)["command"]
    assert command[:2] == ["helios", "profile"]
    return dict(zip(command[2::2], command[3::2], strict=True))


@given(_JOBS)
def test_what_a_job_was_asked_is_read_back_from_it(asked: JobSpec) -> None:
    job = profiling_job(objects.deployment(), asked, objects.CPU, objects.installation())
    assert job_spec(json.loads(json.dumps(job))) == asked


@pytest.mark.parametrize("kind", [JobKind.TIMING, JobKind.QUALITY])
def test_a_job_is_told_the_precisions_where_there_are_others_than_the_reference(kind: JobKind) -> None:
    """Of one for the reference alone nothing differs from what the release before asked."""
    hd, cpu, by = objects.deployment(), objects.CPU, objects.installation()
    alone = profiling_job(hd, objects.job_spec(kind), cpu, by)
    assert "--precisions" not in _options(alone)
    assert "precisions" not in json.dumps(alone)
    several = profiling_job(hd, objects.job_spec(kind, precisions=PRECISIONS[:3]), cpu, by)
    assert _options(several)["--precisions"] == "auto/auto,int8/auto,int8/int8"
    other = profiling_job(hd, objects.job_spec(kind, precisions=PRECISIONS[3:4]), cpu, by)
    assert _options(other)["--precisions"] == "auto/int8"


@pytest.mark.parametrize("kind", JobKind)
def test_a_job_is_told_of_a_bound_of_the_context_where_there_is_one(kind: JobKind) -> None:
    assert _options(_job(kind, limits={"maxContextTokens": 4096}))["--max-context"] == "4096"
    assert "--max-context" not in _options(_job(kind))
    job = profiling_job(
        objects.deployment(), objects.job_spec(kind), objects.CPU, objects.installation(), None
    )
    assert "maxContextTokens" not in json.dumps(job)


@pytest.mark.parametrize("kind", JobKind)
def test_a_job_is_told_its_kind_candidates_and_workload(kind: JobKind) -> None:
    options = _options(_job(kind, workload={"isl": 96, "osl": 48}, limits={"memoryMiB": 800}))
    assert options["--kind"] == kind.value.lower()
    assert (options["--isl"], options["--osl"], options["--memory-mib"]) == ("96", "48", "800")
    assert json.loads(options["--candidates"])[0] == {
        "name": "a",
        "uri": "pvc://models/a",
        "revision": "r1",
        "exits": "pvc://heads.v2/a",
        "exitLayers": [4, 8],
    }


def test_the_result_is_the_termination_message() -> None:
    job = _job(JobKind.TIMING)
    assert _options(job)["--result"] == _container(job)["terminationMessagePath"] == "/dev/termination-log"
    assert _container(job)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_bounds_come_from_the_spec() -> None:
    bounds = {"backoffLimit": 2, "activeDeadlineSeconds": 60}
    spec = _job(profiling=bounds)["spec"]
    assert {name: spec[name] for name in bounds} == bounds
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("seconds", [0, 5])
def test_no_time_to_live_is_so_short_that_nobody_can_read_the_result(seconds: int) -> None:
    job = _job(profiling={"ttlSecondsAfterFinished": seconds})
    assert job["spec"]["ttlSecondsAfterFinished"] == seconds + 24 * 3600


def test_live_prompts_are_fetched_from_the_pod_with_the_token() -> None:
    job = _job(prompts_from="10.244.0.7:8034")
    options = _options(job)
    assert options["--prompts-from"] == "10.244.0.7:8034"
    assert options["--prompts-digest"] == "sha256:3333"
    assert options["--control-token-file"] == "/etc/helios/control/token"
    assert _volume(job, "control")["secret"]["secretName"] == "chat-control"
    assert "--prompts-file" not in options


def test_given_prompts_are_mounted() -> None:
    inline = _job(profiling={"prompts": {"inline": ["x"]}})
    assert _volume(inline, "prompts")["configMap"]["name"] == "chat-inline-prompts"
    mine = _job(profiling={"prompts": {"configMapRef": {"name": "mine", "key": "p.txt"}}})
    assert _volume(mine, "prompts")["configMap"] == {
        "name": "mine",
        "items": [{"key": "p.txt", "path": "prompts.json"}],
    }
    assert _options(mine)["--prompts-file"] == "/etc/helios/prompts/prompts.json"


@pytest.mark.parametrize("kind", [JobKind.INSPECT, JobKind.TIMING])
def test_only_quality_sees_prompts_and_the_token(kind: JobKind) -> None:
    job = _job(kind)
    assert {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]} == {
        "scratch",
        "claim-models",
        _heads_volume(job),
    }
    assert not any("prompts" in option or "token" in option for option in _options(job))


def test_a_job_runs_where_the_pods_do_without_what_only_a_server_has() -> None:
    job = _job(JobKind.TIMING, template=objects.GPU_TEMPLATE)
    pod, container = job["spec"]["template"]["spec"], _container(job)
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert container["name"] == "helios-profile"
    assert container["image"] == "registry.internal/helios-server:cuda"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "20Gi"}
    assert _options(job)["--device"] == "cuda"
    assert not {"args", "ports", "lifecycle", "readinessProbe", "livenessProbe"} & set(container)


@pytest.mark.parametrize(("kind", "on_cpu"), [(JobKind.INSPECT, False), (JobKind.QUALITY, True)])
def test_a_job_on_the_cpu_takes_no_accelerator(kind: JobKind, on_cpu: bool) -> None:
    job = _job(kind, on_cpu=on_cpu, template=objects.GPU_TEMPLATE, limits={"memoryMiB": 16000})
    assert _container(job)["resources"]["limits"] == {"memory": "20Gi"}
    options = _options(job)
    assert options["--device"] == "cpu"
    assert not {"--dtype", "--memory-mib"} & set(options)
    assert job_spec(job).on_cpu is on_cpu


def test_no_account_reaches_a_job_through_the_serving_template() -> None:
    job = _job(template={"spec": {"automountServiceAccountToken": True}})
    assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_profiling_template_has_the_last_word() -> None:
    patch = {
        "spec": {
            "nodeSelector": {"pool": "measure"},
            "containers": [{"name": "helios-profile", "args": ["-x"]}],
        }
    }
    job = _job(template=objects.GPU_TEMPLATE, profiling={"template": patch})
    assert job["spec"]["template"]["spec"]["nodeSelector"]["pool"] == "measure"
    assert _container(job)["args"] == ["-x"]


def test_the_network_policy_finds_a_jobs_pods() -> None:
    found = _job()["spec"]["template"]["metadata"]["labels"]
    assert labels.profiling("chat").items() <= found.items()


def _volume(job: Manifest, name: str) -> Manifest:
    listed = job["spec"]["template"]["spec"]["volumes"]
    return dict(next(volume for volume in listed if volume["name"] == name))


def _heads_volume(job: Manifest) -> str:
    listed = job["spec"]["template"]["spec"]["volumes"]
    (name,) = (
        volume["name"]
        for volume in listed
        if volume.get("persistentVolumeClaim", {}).get("claimName") == "heads.v2"
    )
    return str(name)
