"""The API server's audit log: who wrote what, and when.

The server is started with `--audit-log-path` and `--audit-policy-file bench/operator/audit-policy.yaml`.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path

from helios_operator.api.timestamps import parse_time

WRITES = ("create", "update", "patch", "delete", "deletecollection")


def writes(log: Path, user: str, begin: datetime, end: datetime) -> Counter[str]:
    """By verb and resource, of one user, as the server answered them."""
    found: Counter[str] = Counter()
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event["stage"] != "ResponseComplete" or event["user"]["username"] != user:
                continue
            if event["verb"] in WRITES and begin <= parse_time(event["stageTimestamp"]) < end:
                found[f"{event['verb']} {_resource(event['objectRef'])}"] += 1
    return found


def _resource(reference: dict[str, str]) -> str:
    return "/".join(reference[key] for key in ("resource", "subresource") if key in reference)
