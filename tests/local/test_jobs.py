"""Profiling Jobs are real processes on a tiny model: what they measured, or why they could not, is what is
seen."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from helios_contract import progress, task_file, tasks
from helios_contract.serves import Precision
from helios_operator.api.identity import prompts_digest
from helios_operator.api.types import (
    Candidate,
    Deployment,
    DeploymentSpec,
    LimitsSpec,
    Profiling,
    WorkloadSpec,
)
from helios_operator.decide.snapshot import AskedOption, Job, JobKind, JobPhase, JobSpec
from helios_operator.local import hardware
from helios_operator.local import jobs as local_jobs
from helios_operator.local.jobs import Jobs, JobSettings

from tests.checkpoints import make_checkpoint

TINY = Candidate("tiny", "pvc://models/tiny", exit_layers=(2,))
PROMPTS = ("The whale swam on through the night.", "A ship without a crew is only wood.")
DEPLOYMENT = Deployment(
    name="chat",
    namespace="default",
    uid="u",
    generation=1,
    spec=DeploymentSpec(
        model_name="chat",
        workload=WorkloadSpec(isl=16, osl=8),
        limits=LimitsSpec(memory_mib=2000),
        profiling=Profiling(active_deadline_seconds=120),
    ),
)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    make_checkpoint(tmp_path / "models" / "tiny")
    settings = JobSettings(tmp_path, "cpu", hardware.detect("cpu", "float32")[1], tmp_path / "token")
    made = Jobs(tmp_path / "jobs", settings, lambda *_: None, lambda: None)
    yield made
    await made.stop()


async def finished(jobs: Jobs, name: str) -> Job:
    jobs.settle()
    async with asyncio.timeout(240):
        while True:
            job = next(job for job in jobs.see() if job.spec.name == name)
            if job.phase is not JobPhase.RUNNING:
                return job
            await asyncio.sleep(0.05)


async def test_inspect_then_quality_at_the_revision_found(jobs: Jobs) -> None:
    missing = Candidate("missing", "file:///no/such/model")
    jobs.start(JobSpec("i-1", JobKind.INSPECT, (TINY, missing)), DEPLOYMENT, (), None)
    inspected = await finished(jobs, "i-1")
    assert inspected.phase is JobPhase.SUCCEEDED
    assert inspected.resolved["tiny"].num_layers == 4
    assert "/no/such/model" in inspected.problems["missing"]
    spec = JobSpec("q-1", JobKind.QUALITY, (TINY,), prompts_digest=prompts_digest(PROMPTS))
    jobs.start(spec, DEPLOYMENT, PROMPTS, None)
    measured = await finished(jobs, "q-1")
    assert measured.message == ""
    (row,) = measured.quality
    assert row.identity.revision == inspected.resolved["tiny"].revision
    assert row.identity.prompts_digest == prompts_digest(PROMPTS)
    assert [depth.layer for depth in row.exits] == [2, 4]


async def test_tasks_are_asked_of_the_options_in_order(jobs: Jobs) -> None:
    given = '[{"name": "any", "prompt": "x", "maxTokens": 2, "expect": {"regex": "^"}}]'
    digest = tasks.digest(task_file.read(given))
    options = (AskedOption("tiny", 4, Precision()), AskedOption("tiny", 2, Precision()))
    jobs.start(JobSpec("k-1", JobKind.TASKS, (TINY,), tasks_digest=digest, options=options),
               DEPLOYMENT, (), None, given)  # fmt: skip
    measured = await finished(jobs, "k-1")
    assert measured.message == ""
    assert [(row.identity.layer_budget, row.passes, row.tasks) for row in measured.tasks] == [
        (4, "8", 1), (2, "8", 1),
    ]  # fmt: skip
    assert {row.identity.tasks_digest for row in measured.tasks} == {digest}


@pytest.mark.parametrize(
    ("kind", "yields"), [(JobKind.TIMING, False), (JobKind.QUALITY, True), (JobKind.INSPECT, True)]
)
async def test_pods_go_before_a_job_that_is_not_timed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: JobKind, yields: bool
) -> None:
    seen = tmp_path / "seen"
    said = f"print(os.sched_getscheduler(0), file=open({str(seen)!r}, 'w'))"
    script = f"import os, time; time.sleep(0.5); {said}"
    monkeypatch.setattr(local_jobs, "helios_command", lambda *_: [sys.executable, "-c", script])
    jobs.start(JobSpec("n-1", kind, (TINY,)), DEPLOYMENT, (), None)
    await finished(jobs, "n-1")
    assert int(seen.read_text()) == (os.SCHED_IDLE if yields else os.sched_getscheduler(0))


async def test_a_failed_job_says_why_and_can_be_tried_again(jobs: Jobs) -> None:
    bad = replace(TINY, uri="pvc://models/none")
    spec = JobSpec("t-1", JobKind.TIMING, (bad,), head_kinds=("bare",))
    jobs.start(spec, DEPLOYMENT, (), None)
    jobs.start(spec, DEPLOYMENT, (), None)  # while it runs: nothing more
    failed = await finished(jobs, "t-1")
    assert (failed.phase, failed.attempts) == (JobPhase.FAILED, 1)
    assert "pvc://models/none" in failed.message
    jobs.start(spec, DEPLOYMENT, (), None)
    assert next(iter(jobs.see())).attempts == 2


async def test_a_job_that_takes_too_long_is_ended(jobs: Jobs) -> None:
    late = replace(DEPLOYMENT, spec=replace(DEPLOYMENT.spec, profiling=Profiling(active_deadline_seconds=0)))
    jobs.start(JobSpec("i-1", JobKind.INSPECT, (TINY,)), late, (), None)
    job = await finished(jobs, "i-1")
    assert job.message.startswith("deadline: not done within 0 s")


async def test_a_deleted_job_leaves_no_process(jobs: Jobs, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    jobs.start(JobSpec("i-1", JobKind.INSPECT, (TINY,)), DEPLOYMENT, (), None)
    jobs.settle()
    async with asyncio.timeout(240):
        while not (started := [c for c in psutil.Process().children() if c.pid not in before]):
            await asyncio.sleep(0.01)
    jobs.delete("i-1")
    jobs.settle()
    await asyncio.sleep(0)
    assert jobs.see() == ()
    assert not await asyncio.to_thread(lambda: psutil.wait_procs(started, timeout=60)[1])
    assert not (tmp_path / "jobs" / "i-1").exists()


async def test_a_job_without_room_for_its_files_fails_and_says_why(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("not a folder")
    jobs.start(JobSpec("i-1", JobKind.INSPECT, (TINY,)), DEPLOYMENT, (), None)
    job = await finished(jobs, "i-1")
    assert (job.phase, job.attempts) == (JobPhase.FAILED, 1)
    assert job.message.startswith("cannot be started: ")


async def test_how_far_a_job_is_stands_with_it_and_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it ends. In place of `helios profile`, a process that speaks as it does and waits for a file."""
    go = tmp_path / "go"
    says = (
        "import pathlib, time\n"
        f"print('[   5.0 s] {progress.words(0.5, 30)}')\n"
        "print('[   5.1 s] layer 2 of 4: tiny scored')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
    )
    monkeypatch.setattr(local_jobs, "helios_command", lambda *_: [sys.executable, "-c", says])
    settings = JobSettings(tmp_path, "cpu", hardware.detect("cpu", "float32")[1], tmp_path / "token")
    passed_on: list[tuple[str, str]] = []
    made = Jobs(tmp_path / "jobs", settings, lambda *_: None, lambda: None, lambda *it: passed_on.append(it))
    made.start(JobSpec("q-1", JobKind.QUALITY, (TINY,)), DEPLOYMENT, PROMPTS, None)
    made.settle()
    async with asyncio.timeout(240):
        while not next(iter(made.see())).progress:
            await asyncio.sleep(0.01)
    assert next(iter(made.see())).progress == "50 %, about 30 s left"
    assert passed_on == [("q-1", "Quality: tiny: 50 %, about 30 s left")]
    go.touch()
    assert (await finished(made, "q-1")).progress == ""
