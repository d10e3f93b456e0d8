"""What candidates turn out to be: revision, backbone, depth, legal exits and heads, before anything is
measured.

Called by `command.py`. One candidate that cannot be opened does not spoil the others: it gets its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helios_server.errors import HeliosError
from helios_server.profile.candidates import Candidate
from helios_server.profile.document import SCHEMA, Document
from helios_server.profile.opened import open_candidate


def inspect(candidates: Sequence[Candidate], volumes: Path | None) -> Document:
    """The result document of kind `inspect`: by candidate name what was found, or what is wrong with it."""
    resolved = {candidate.name: _resolved(candidate, volumes) for candidate in candidates}
    return {"schema": SCHEMA, "kind": "inspect", "resolved": resolved}


def _resolved(candidate: Candidate, volumes: Path | None) -> Document:
    try:
        found = open_candidate(candidate, volumes)
        config = found.checkpoint.config
        return {
            "revision": found.revision,
            "backbone": found.checkpoint.fingerprint,
            "numLayers": config.num_layers,
            "maxContextTokens": config.max_context,
            "exitsDigest": found.exits_digest,
            "headKind": found.head_kind,
            "exitLayers": list(found.exit_layers),
            "breachThresholds": {str(layer): round(at, 3) for layer, at in found.breach_thresholds.items()},
        }
    except HeliosError as error:
        return {"error": str(error)}
