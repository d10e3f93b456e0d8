"""What candidates turn out to be: revision, backbone, depth, legal exits and heads, before anything is
measured.

Called by `command.py`. One candidate that cannot be opened does not spoil the others: it gets its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helios_contract.results import Inspection, Resolved

from helios_server.errors import HeliosError
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import OpenCandidate, open_candidate


def inspect(
    candidates: Sequence[Candidate], volumes: Path | None, max_context: int | None = None
) -> Inspection:
    """By candidate name what was found, or what is wrong with it. max_context: tokens to be served."""
    resolved, problems = {}, {}
    for candidate in candidates:
        try:
            resolved[candidate.name] = _resolved(open_candidate(candidate, volumes), max_context)
        except HeliosError as error:
            problems[candidate.name] = str(error)
    return Inspection(resolved, problems)


def _resolved(found: OpenCandidate, max_context: int | None) -> Resolved:
    config = found.checkpoint.config
    Tokenizer.open(found.checkpoint.path)  # what has none can be timed, and never serve
    return Resolved(
        revision=found.revision,
        backbone=found.checkpoint.fingerprint,
        num_layers=config.num_layers,
        max_context_tokens=config.context(max_context),
        model_context_tokens=config.max_context,
        longest_context_tokens=config.longest_context,
        exits_digest=found.exits_digest,
        head_kind=found.head_kind,
        exit_layers=tuple(found.exit_layers),
        breach_thresholds={layer: round(at, 3) for layer, at in found.breach_thresholds.items()},
    )
