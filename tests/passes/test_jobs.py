"""What a Job hands back, read: what it measured, and why it left the rest out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from helios_contract import results
from helios_contract.results import (
    CandidateQuality,
    ExitQuality,
    LeftOut,
    OptionPasses,
    Quality,
    Result,
    Tasks,
    Timings,
)
from helios_contract.serves import Precision
from helios_operator.api.types import Candidate
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec
from helios_operator.passes import jobs

from tests.decide.world import HARDWARE

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INT4 = LeftOut("int4", "auto", "weight_dtype: int4 cannot hold a weight of 1e+06")
EXITS = (ExitQuality(30, 900, 100, 100, 0),)
DOCUMENTS: dict[JobKind, Result] = {
    JobKind.QUALITY: Quality(
        prompts_digest="sha256:p",
        rows=(CandidateQuality("chat", "", EXITS),),
        left_out=(INT4,),
    ),
    JobKind.TASKS: Tasks(
        tasks_digest="sha256:t", tasks=1, rows=(OptionPasses("chat", "", 30, "8"),), left_out=(INT4,)
    ),
    JobKind.TIMING: Timings((), (INT4,)),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_why_a_precision_was_left_out_is_read(kind: JobKind) -> None:
    candidate = Candidate("chat", "pvc://models/chat", revision="rev1")
    told = JobSpec("j", kind, (candidate,), prompts_digest="sha256:p", tasks_digest="sha256:t")
    text = results.to_json(DOCUMENTS[kind])
    found = jobs.succeeded(Job(told, JobPhase.RUNNING, NOW), told, text, HARDWARE, NOW)
    assert found.phase is JobPhase.SUCCEEDED
    assert found.left_out == {Precision("int4", "auto"): INT4.why}
    older = text.replace('"leftOut"', '"unknown"')
    assert jobs.succeeded(Job(told, JobPhase.RUNNING, NOW), told, older, HARDWARE, NOW).left_out == {}
