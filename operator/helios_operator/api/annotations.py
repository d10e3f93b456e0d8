"""What a person may ask of a HeliosDeployment by an annotation: reassess now, switch to a candidate, or hold
every change.

Written by `helios reassess` and `helios switch` (or `kubectl annotate`), read by the decisions. The first two
are requests, not state: their value is the time of asking, and they have been answered when a reassessment
triggered by hand is recorded at or after that time. Nothing deletes them. The last one holds while it is
there: whoever keeps the spec in Git leaves annotations of others alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from helios_operator.api.timestamps import format_time, parse_time

REASSESS = "helios.dev/reassess"
"""Value: the time of asking."""
SWITCH_TO = "helios.dev/switch-to"
"""Value: CANDIDATE@TIME. Obeyed once, whatever the objective says; the SLO's verdict is reported, not
enforced."""
PAUSED = "helios.dev/paused"
"""Value: anything but false. As spec.rollout.paused."""


def is_paused(annotations: Mapping[str, str]) -> bool:
    """A mistyped value holds changes: that is what somebody wanted who wrote the annotation."""
    return annotations.get(PAUSED, "false").strip().lower() != "false"


@dataclass(frozen=True)
class Request:
    """A request by hand. `switch_to`: the candidate asked for, None for a reassessment."""

    asked: datetime
    switch_to: str | None = None


def reassess_value(now: datetime) -> str:
    return format_time(now)


def switch_value(candidate: str, now: datetime) -> str:
    return f"{candidate}@{format_time(now)}"


def newest_request(annotations: Mapping[str, str]) -> Request | None:
    """The newest request, answered or not. A value that cannot be read counts as asked at the epoch's
    start: it is answered already, and a typing mistake starts nothing."""
    requests = []
    if REASSESS in annotations:
        requests.append(Request(_time(annotations[REASSESS])))
    if SWITCH_TO in annotations:
        candidate, _, time = annotations[SWITCH_TO].partition("@")
        requests.append(Request(_time(time), candidate))
    return max(requests, key=lambda request: request.asked, default=None)


def _time(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
