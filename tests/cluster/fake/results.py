"""What a profiling Job returns, as the termination message of its pod: the truth of one model for all.

Called by `kubelet`. The figures are those of `tests.decide.truth`.
"""

from __future__ import annotations

import json
from typing import Any

from helios_operator.api import serialize
from helios_operator.api.codec import encode
from helios_operator.api.rows import (
    ExitQuality,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TimingIdentity,
    TimingRow,
)
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.decide.truth import AUDIT_BYTES, EXIT_BYTES, Model
from tests.decide.truth import BIG as BACKBONE
from tests.decide.world import HARDWARE

EXITS = (24, 27)
MODEL = Model(BACKBONE, exits=EXITS)
_PROMPT_BYTES = 240


def result(asked: JobSpec) -> str:
    """`helios-result/1`."""
    measured = {JobKind.INSPECT: _inspection, JobKind.TIMING: _timing, JobKind.QUALITY: _quality}[asked.kind]
    return json.dumps({"schema": "helios-result/1", "kind": asked.kind.value.lower()} | measured(asked))


def failure(problem: str) -> str:
    error = {"field": "model", "problem": problem, "fix": "copy it again"}
    return json.dumps({"schema": "helios-result/1", "kind": "inspect", "error": error})


def _inspection(asked: JobSpec) -> dict[str, Any]:
    return {"resolved": {candidate.name: encode(MODEL.resolved()) for candidate in asked.candidates}}


def _timing(asked: JobSpec) -> dict[str, Any]:
    identity = TimingIdentity("", "", "float16", asked.head_kinds, HARDWARE, 1)
    row = TimingRow(
        "t-1",
        identity,
        RowPhase.COMPLETE,
        fit=BACKBONE.fit(),
        memory=BACKBONE.memory(),
        exit_bytes={"mlp": EXIT_BYTES},
        audit_bytes=AUDIT_BYTES,
    )
    return dict(serialize.timing(row)["status"]["timing"])


def _quality(asked: JobSpec) -> dict[str, Any]:
    rows = [(candidate.name, _quality_row(asked.prompts_digest)) for candidate in asked.candidates]
    measured = serialize.quality(rows[0][1])["status"]["quality"]
    exits = [{"candidate": name, "exitsDigest": "", "exits": measured["exits"]} for name, _ in rows]
    return {k: v for k, v in measured.items() if k != "exits"} | {
        "promptsDigest": asked.prompts_digest,
        "rows": exits,
    }


def _quality_row(digest: str) -> QualityRow:
    prompts = 3
    bits = {24: 110_000, 27: 104_000, BACKBONE.layers: 100_000}
    exits = tuple(
        ExitQuality(layer, each * prompts, 90, 50, 20, 400, (each,) * prompts) for layer, each in bits.items()
    )
    identity = QualityIdentity("", "", "", digest)
    return QualityRow(
        "q-1",
        identity,
        RowPhase.COMPLETE,
        prompts=prompts,
        tokens=60 * prompts,
        bytes=_PROMPT_BYTES * prompts,
        prompt_bytes=(_PROMPT_BYTES,) * prompts,
        exits=exits,
    )
