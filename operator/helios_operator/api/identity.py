"""Names and digests that follow from what a measurement is of, so that the same measurement is found again.

Called by the decisions (which rows are missing?) and by whoever stores them. Names never change for the
same identity: tests hold golden values, because a new name would throw away every profile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from helios_operator.api import serialize
from helios_operator.api.rows import QualityIdentity, TasksIdentity, TimingIdentity


def timing_name(identity: TimingIdentity) -> str:
    """The order of the head kinds does not matter."""
    document = serialize.timing_identity(identity)
    return "t-" + _short_hash({**document, "headKinds": sorted(identity.head_kinds)})


def quality_name(identity: QualityIdentity) -> str:
    return "q-" + _short_hash(serialize.quality_identity(identity))


def tasks_name(identity: TasksIdentity) -> str:
    return "k-" + _short_hash(serialize.tasks_identity(identity))


def prompts_digest(prompts: Sequence[str]) -> str:
    """Of the texts in their order; the serving pods and the profiling Jobs compute the same."""
    text = json.dumps(list(prompts), ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _short_hash(document: dict[str, Any]) -> str:
    """48 bits: one collision in 2^24 rows, and names that a person can compare."""
    canonical = json.dumps(document, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
