"""The limits document that a pod reads at start, and again after every restart.

Called by `serve`. It checks form; what can be served, the engine says.
"""

from __future__ import annotations

import logging
from pathlib import Path

from helios_contract import limits as document
from helios_contract.codec import Malformed
from helios_contract.limits import Limits

from helios_server.engine.limits import check
from helios_server.errors import InvalidRequest

logger = logging.getLogger(__name__)


def read(path: Path) -> Limits:
    """The limits in a file of any release; what is newer than this one is named in the log.

    InvalidRequest names the file, or the field in it; LimitsRefused what is out of range.
    """
    try:
        limits = document.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("limits", f"{path} cannot be read ({error})", "Give a limits.json") from None
    except Malformed as error:
        field = f"limits.{error.path}" if error.path else "limits"
        raise InvalidRequest(field, f"{error.problem} ({path})", "Correct it") from None
    if limits.unknown:
        logger.warning(
            "%s: %s: not known to this release, ignored; upgrade the server to use it",
            path,
            ", ".join(limits.unknown),
        )
    check(limits)
    return limits
