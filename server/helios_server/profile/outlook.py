"""What the measured row predicts for a workload, as lines for people; decisions predict for themselves.

Called by `timing.py`. The laws stand in `helios_server.planning`; this says them for every legal depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helios_contract.results import MemoryFacts, StepTimeFit

from helios_server.exits.head import BareHead
from helios_server.planning.memory import capacity
from helios_server.planning.timing import Workload, predict
from helios_server.profile.opened import OpenCandidate


def tell_outlook(
    candidates: Sequence[OpenCandidate],
    fit: StepTimeFit,
    facts: MemoryFacts,
    exit_bytes: dict[str, int],
    limit_bytes: int,
    workload: Workload,
    progress: Callable[[str], None],
) -> None:
    """One line for each candidate's exits and for full depth, saturated. exit_bytes: by kind of head."""
    progress(f"expected of {workload.isl} prompt and {workload.osl} new tokens in {limit_bytes >> 20} MiB:")
    full = candidates[0].checkpoint.config.num_layers
    depths = [
        (opened.candidate.name, layer, opened.head_kind)
        for opened in candidates
        for layer in opened.exit_layers
    ]
    for name, layers, kind in [*depths, ("full depth", full, BareHead.kind)]:
        rows = capacity(
            facts,
            limit_bytes=limit_bytes,
            layers=layers,
            tokens_per_request=workload.isl + workload.osl,
            exit_bytes=exit_bytes[kind],
            max_rows=facts.step_tokens,
        ).rows
        if not rows:
            progress(f"  {name}, {layers} layers: not one request fits")
            continue
        expected = predict(
            fit, layers=layers, head_kind=kind, batch=rows, workload=workload, step_tokens=facts.step_tokens
        )
        progress(
            f"  {name}, {layers} layers: {rows} rows fit, {expected.tokens_per_second:.0f} tokens/s, "
            f"{expected.itl_ms:.0f} ms between tokens"
        )
