"""What a profiling Job returns, as the termination message of its pod: the truth of one model for all.

Called by `kubelet`. The figures are those of `tests.decide.truth`.
"""

from __future__ import annotations

from helios_contract import results
from helios_contract.results import (
    CandidateQuality,
    ExitQuality,
    Failure,
    Inspection,
    Quality,
    Result,
    Timing,
    Timings,
)
from helios_contract.serves import Precision
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.decide.truth import AUDIT_BYTES, EXIT_BYTES, Model
from tests.decide.truth import BIG as BACKBONE

EXITS = (24, 27)
MODEL = Model(BACKBONE, exits=EXITS)
_PROMPTS = 3
_PROMPT_BYTES = 240
_BITS = {24: 110_000, 27: 104_000, BACKBONE.layers: 100_000}


def result(asked: JobSpec) -> str:
    """`helios-result/1`."""
    return results.to_json(_measured(asked))


def failure(problem: str) -> str:
    return results.to_json(Failure("inspect", "model", problem, "copy it again"))


def _measured(asked: JobSpec) -> Result:
    match asked.kind:
        case JobKind.INSPECT:
            return Inspection({candidate.name: MODEL.resolved() for candidate in asked.candidates})
        case JobKind.TIMING:
            several = tuple(map(_timing, asked.precisions))
            return several[0] if asked.precisions == (Precision(),) else Timings(several)
    exits = tuple(
        ExitQuality(layer, each * _PROMPTS, 90, 50, 20, 400, (each,) * _PROMPTS)
        for layer, each in _BITS.items()
    )
    return Quality(
        prompts_digest=asked.prompts_digest,
        prompts=_PROMPTS,
        tokens=_PROMPTS * 60,
        bytes=_PROMPTS * _PROMPT_BYTES,
        prompt_bytes=(_PROMPT_BYTES,) * _PROMPTS,
        rows=tuple(
            CandidateQuality(candidate.name, "", exits, precision.weight_dtype, precision.kv_cache_dtype)
            for precision in asked.precisions
            for candidate in asked.candidates
        ),
    )


def _timing(precision: Precision) -> Timing:
    return Timing(
        fit=BACKBONE.fit(precision),
        memory=BACKBONE.memory(precision),
        exit_bytes={"mlp": EXIT_BYTES},
        audit_bytes=AUDIT_BYTES,
        weight_dtype=precision.weight_dtype,
        kv_cache_dtype=precision.kv_cache_dtype,
    )
