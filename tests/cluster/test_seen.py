"""Pods and Jobs as a pass sees them: in whose words they do not come up, and what they returned."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from helios_operator.cluster import jobs, pods
from helios_operator.cluster.kinds import JOB, POD
from helios_operator.cluster.mirror import Mirror
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, PodPhase
from helios_operator.passes.unread import Reader
from helios_operator.render.job import profiling_job

from tests.render import objects

CREATED = "2026-11-22T06:00:00Z"
NOW = datetime(2026, 11, 22, 6, 5, tzinfo=UTC)


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    about = {
        "name": "p",
        "namespace": "team-a",
        "uid": "p",
        "resourceVersion": "1",
        "creationTimestamp": CREATED,
    }
    return {"metadata": about | metadata, "spec": {"containers": []}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [{"name": "helios-profile", "restartCount": 4, **state}]}


def test_a_ready_pod_that_is_going_is_not_ready() -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    assert pods.phase(pod(ready)) is PodPhase.RUNNING
    assert pods.message(pod(ready)) == ""
    going = pod(ready, deletionTimestamp=CREATED)
    assert pods.phase(going) is PodPhase.TERMINATING
    assert not pods.is_ready(going)


def test_the_schedulers_words() -> None:
    told = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes: no gpu",
    }
    assert pods.message(pod({"phase": "Pending", "conditions": [told]})) == "Unschedulable: 0/3 nodes: no gpu"


def test_the_last_words_of_a_process_that_ends_again_and_again() -> None:
    ended = {"exitCode": 2, "reason": "Error", "message": "log\nerror: model: is not there; fetch it"}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    seen = pod(container(state=waiting, lastState={"terminated": ended}))
    assert pods.phase(seen) is PodPhase.FAILED
    assert pods.restarts(seen) == 4
    expected = "CrashLoopBackOff: error: model: is not there; fetch it (Error, exit code 2)"
    assert pods.message(seen) == expected


def test_a_missing_secret_is_named() -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf-token" not found'}}
    assert "hf-token" in pods.message(pod(container(state=waiting)))


def see(job_status: dict[str, Any], message: str | None = None, code: int = 0, now: datetime = NOW) -> Job:
    """A Job of the deployment `chat`, and its pod when it left a message."""
    hd, mirror = objects.deployment(), Mirror()
    asked = objects.job_spec(JobKind.INSPECT, candidates=hd.spec.candidates, rows=())
    made = profiling_job(hd, asked, objects.CPU, objects.installation())
    made["metadata"] |= {"uid": "j", "resourceVersion": "1", "creationTimestamp": CREATED}
    mirror.put(JOB, made | {"status": job_status})
    if message is not None:
        state = {
            "terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
        }
        labels = {"helios.dev/profiles": hd.name}
        mirror.put(POD, pod(container(state=state), labels=labels, ownerReferences=[{"uid": "j"}]))
    (seen,), _ = jobs.see(hd, hd.spec.candidates, mirror, Reader(), objects.CPU, now)
    return seen


def ended(kind: str, **more: str) -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "lastTransitionTime": "2026-11-22T06:04:50Z", **more}
    return {"startTime": CREATED, "conditions": [condition]}


def test_a_result_is_read_from_the_termination_message() -> None:
    found = {"small": {"error": "model: is not there; fetch it"}}
    text = json.dumps({"schema": "helios-result/1", "kind": "inspect", "resolved": found})
    job = see(ended("Complete"), text)
    assert job.phase is JobPhase.SUCCEEDED
    assert job.problems == {"small": "model: is not there; fetch it"}


def test_news_of_the_pod_may_come_late_but_not_for_ever() -> None:
    assert see(ended("Complete")).phase is JobPhase.RUNNING
    late = see(ended("Complete"), now=NOW + timedelta(minutes=1))
    assert (late.phase, late.attempts) == (JobPhase.FAILED, 1)


def test_what_is_no_result_fails_the_job() -> None:
    assert see(ended("Complete"), "hello").phase is JobPhase.FAILED


def test_a_failed_job_has_used_up_its_attempts_and_says_why() -> None:
    error = {"field": "prompts", "problem": "are empty", "fix": "give some"}
    job = see(
        ended("Failed"), json.dumps({"schema": "helios-result/1", "kind": "inspect", "error": error}), code=2
    )
    assert (job.phase, job.attempts) == (JobPhase.FAILED, 2)
    assert job.message == "prompts: are empty; give some"
    killed = see(ended("Failed"), "", code=137)
    assert "137" in killed.message
    assert "activeDeadlineSeconds" in see(ended("Failed", reason="DeadlineExceeded")).message


# -- another container in the pod ---------------------------------------------------------------------------


def beside(message: str, code: int, now: datetime, job_status: dict[str, Any] | None = None) -> Job:
    """A Job whose own container ended at 06:04:00, beside one that runs on."""
    hd, mirror = objects.deployment(), Mirror()
    asked = objects.job_spec(JobKind.INSPECT, candidates=hd.spec.candidates, rows=())
    made = profiling_job(hd, asked, objects.CPU, objects.installation())
    made["metadata"] |= {"uid": "j", "resourceVersion": "1", "creationTimestamp": CREATED}
    mirror.put(JOB, made | {"status": job_status or {"startTime": CREATED}})
    ended = {"exitCode": code, "message": message, "finishedAt": "2026-11-22T06:04:00Z"}
    containers = [
        {"name": "mesh-proxy", "state": {"running": {"startedAt": CREATED}}},
        {"name": "helios-profile", "state": {"terminated": ended}},
    ]
    status = {"phase": "Running", "containerStatuses": containers}
    mirror.put(POD, pod(status, labels={"helios.dev/profiles": hd.name}, ownerReferences=[{"uid": "j"}]))
    (seen,), _ = jobs.see(hd, hd.spec.candidates, mirror, Reader(), objects.CPU, now)
    return seen


RESULT = json.dumps({"schema": "helios-result/1", "kind": "inspect", "resolved": {"small": {"error": "no"}}})


def test_a_result_counts_though_another_container_runs_on() -> None:
    job = beside(RESULT, 0, datetime(2026, 11, 22, 6, 4, 1, tzinfo=UTC))
    assert (job.phase, job.lingers, job.problems) == (JobPhase.SUCCEEDED, True, {"small": "no"})
    assert job.finished == datetime(2026, 11, 22, 6, 4, tzinfo=UTC)


def test_a_result_counts_though_the_job_ran_into_its_deadline() -> None:
    job = beside(RESULT, 0, NOW, ended("Failed", reason="DeadlineExceeded"))
    assert (job.phase, job.lingers) == (JobPhase.SUCCEEDED, False)


def test_a_failure_counts_too_once_the_job_had_the_time_to_say_it() -> None:
    error = {"field": "prompts", "problem": "are empty", "fix": "give some"}
    text = json.dumps({"schema": "helios-result/1", "kind": "inspect", "error": error})
    assert beside(text, 2, datetime(2026, 11, 22, 6, 4, 10, tzinfo=UTC)).phase is JobPhase.RUNNING
    job = beside(text, 2, datetime(2026, 11, 22, 6, 5, tzinfo=UTC))
    assert (job.phase, job.lingers, job.attempts) == (JobPhase.FAILED, True, 2)
    assert job.message == "prompts: are empty; give some"


def test_a_job_that_has_yet_to_say_that_it_is_complete_lingers_not() -> None:
    """Its pod ends a moment before it does, whatever runs in it."""
    hd, mirror = objects.deployment(), Mirror()
    asked = objects.job_spec(JobKind.INSPECT, candidates=hd.spec.candidates, rows=())
    made = profiling_job(hd, asked, objects.CPU, objects.installation())
    made["metadata"] |= {"uid": "j", "resourceVersion": "1", "creationTimestamp": CREATED}
    mirror.put(JOB, made | {"status": {"startTime": CREATED}})
    over = {"exitCode": 0, "message": RESULT, "finishedAt": "2026-11-22T06:04:00Z"}
    status = {
        "phase": "Succeeded",
        "containerStatuses": [{"name": "helios-profile", "state": {"terminated": over}}],
    }
    mirror.put(POD, pod(status, labels={"helios.dev/profiles": hd.name}, ownerReferences=[{"uid": "j"}]))
    (seen,), _ = jobs.see(hd, hd.spec.candidates, mirror, Reader(), objects.CPU, NOW)
    assert (seen.phase, seen.lingers) == (JobPhase.SUCCEEDED, False)
