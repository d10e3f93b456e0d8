"""Every condition type of a HeliosDeployment, each with its sentence.

Used by whoever writes a status; `docs/conditions.md` is generated from it. What a condition gives as its
reason stands in `reasons`. Types are API: they are added, never renamed.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Of a HeliosDeployment, each with what True means."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> ConditionType:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    AVAILABLE = (
        "Available",
        "Some pod serves now. A missed SLO or a failed profile does not make it False.",
    )
    PROGRESSING = "Progressing", "A change is under way; the message says what it waits for."
    PROFILED = "Profiled", "Every candidate that is considered has current timing and quality profiles."
    SLO_MET = (
        "SLOMet",
        "Live latency and quality are within `spec.slo`; Unknown until there is traffic.",
    )
    READY = "Ready", "What serves meets the spec, and nothing needs attention."
