"""What a reason is: a word for machines, its sentence for people, and the places where it appears.

The base of `api.reasons` and `api.event_reasons`, which list them. It must know none of them.
"""

from __future__ import annotations

from enum import StrEnum


class Where(StrEnum):
    """Where a reason appears; `place` says it in words where the name does not."""

    place: str

    def __new__(cls, value: str, place: str = "") -> Where:
        member = str.__new__(cls, value)
        member._value_ = value
        member.place = place
        return member

    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    PROFILED = "Profiled"
    SLO_MET = "SLOMet"
    READY = "Ready"
    DECISION = "Decision", "status.reassessment, status.history and `helios why`"
    CANDIDATE = "Candidate", "status.candidates"
    EVENT = "Event", "`kubectl events` and the lines of `helios up`"
    PROFILE = "Complete", "of a HeliosProfile"
    MODEL = "Resolved", "of a HeliosModel"


class Word(StrEnum):
    """A reason, whichever list it stands in."""

    sentence: str
    where: tuple[Where, ...]

    def __new__(cls, value: str, sentence: str, *where: Where) -> Word:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.where = where
        return member
