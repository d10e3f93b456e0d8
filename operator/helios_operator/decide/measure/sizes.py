"""How long the result of a Job over several precisions becomes, before there is one: does one Job do?

Called by `profiling`. A result travels as a termination message (`docs/decisions/0062`, 0157). What is
counted is a document of the contract with figures as long as they get, so that whoever writes it need give up
nothing that decisions rest on: of a timing the points, of a quality the bits per prompt below full depth.
"""

from __future__ import annotations

from collections.abc import Sequence

from helios_contract import results
from helios_contract.results import (
    CandidateQuality,
    EnergyCost,
    EnergyPoint,
    ExitQuality,
    HeadCost,
    MemoryFacts,
    Quality,
    StepTimeFit,
    Timing,
    Timings,
)

from helios_operator.decide.facts.candidates import Contender

LIMIT_BYTES = 4096
_ENERGY_POINTS = 3
_TIMED_ROWS = (1, 2, 3, 4, 8, 16, 32, 128)
_COUNT, _BYTES, _NS = 9_999, 99_999_999_999, 99_999_999
_DIGEST = "sha256:" + "0" * 64
_WORD = "int8"


def timings_fit(head_kinds: Sequence[str], precisions: int) -> bool:
    return _length(Timings((_timing(head_kinds),) * precisions)) <= LIMIT_BYTES


def quality_fits(family: Sequence[Contender], prompts: int, precisions: int) -> bool:
    """Full depth's bits per prompt stand in the first row of each precision."""
    rows = [_row(contender, prompts if place == 0 else 0) for place, contender in enumerate(family)]
    whole = Quality(
        prompts=prompts,
        tokens=_NS,
        bytes=_NS,
        prompt_bytes=(_COUNT,) * prompts,
        prompts_digest=_DIGEST,
        rows=tuple(rows) * precisions,
    )
    return _length(whole) <= LIMIT_BYTES


def _length(result: results.Result) -> int:
    return len(results.to_json(result).encode())


def _timing(head_kinds: Sequence[str]) -> Timing:
    return Timing(
        fit=_fit(head_kinds),
        memory=MemoryFacts(_BYTES, _BYTES, _BYTES, _COUNT, _NS, _NS, _COUNT, 99),
        exit_bytes={kind: _NS for kind in head_kinds if kind != "bare"},
        audit_bytes=_NS,
        energy=EnergyCost("declared", (EnergyPoint(999, 99, _NS),) * _ENERGY_POINTS, _COUNT),
        device_memory_bytes=_BYTES,
        weight_dtype=_WORD,
        kv_cache_dtype=_WORD,
    )


def _fit(head_kinds: Sequence[str]) -> StepTimeFit:
    at_rows = (_NS,) * len(_TIMED_ROWS)
    heads = {kind: HeadCost(_NS, _NS, at_rows if kind == "bare" else ()) for kind in head_kinds}
    return StepTimeFit(_NS, _NS, _NS, _COUNT, heads, 99, _TIMED_ROWS, at_rows)


def _row(contender: Contender, prompts: int) -> CandidateQuality:
    resolved = contender.resolved
    below = [_exit(0)] * len(resolved.exit_layers) if resolved else []
    digest = _DIGEST if resolved and resolved.exits_digest else ""
    return CandidateQuality(contender.name, digest, (*below, _exit(prompts)), _WORD, _WORD)


def _exit(prompts: int) -> ExitQuality:
    return ExitQuality(999, _NS, 100, 100, 1000, 1000, (999_999,) * prompts)
