"""Tasks of the user's own: a prompt or a chat, and what must hold of the answer; which of them an option
passes.

Stand in a HeliosDeployment, in a ConfigMap or in a file (`task_file` reads and checks them); answered by a
profiling Job and by a serving pod, judged by `answers`. What was passed crosses as bits, in the tasks' order,
beside the tasks' digest. Nothing here may run a pattern or read a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helios_contract import codec

MOST_TASKS = 256
MOST_BYTES = 256 * 1024
"""Of all tasks as compact JSON in UTF-8."""
MOST_TOKENS = 1024
"""Of one answer."""
MOST_TOKENS_IN_ALL = 65536
"""Of all answers: what a Job generates for one option at most."""
MOST_CHARACTERS = 32768
"""Of a prompt, or of a chat's messages together."""
MOST_EXPECTED = 4096
"""Characters of `equals` and `contains`."""
MOST_PATTERN = 1024
"""Characters of a regular expression."""
MOST_SCHEMA = 16384
"""Bytes of a JSON schema as compact JSON."""
MOST_MESSAGES = 32
MOST_NAME = 63
"""Characters."""
ROLES = ("system", "user", "assistant")

_CODEC = codec.Codec()


@dataclass(frozen=True)
class Message:
    """A turn of a chat."""

    role: str
    """system | user | assistant"""
    content: str


@dataclass(frozen=True)
class Number:
    """Where the last number of an answer must lie: within min and max, or no further from `value` than
    `tolerance`."""

    min: float | None = None
    """In the answer's own unit, as the next three; None: no bound."""
    max: float | None = None
    """None: no bound."""
    value: float | None = None
    """What it should be; None: min and max say."""
    tolerance: float | None = None
    """How far off is right; None: not at all."""


@dataclass(frozen=True)
class Expectation:
    """What must hold of an answer, without the white space around it: all that is set."""

    equals: str | None = None
    contains: str | None = None
    regex: str | None = None
    """In RE2's syntax; anywhere in the answer."""
    number: Number | None = None
    json_schema: Mapping[str, Any] | None = None
    """The whole answer is JSON of this schema."""


@dataclass(frozen=True)
class Task:
    """`prompt`, or `messages` which the model's own chat template puts into words."""

    name: str
    expect: Expectation
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    max_tokens: int = 32
    """Of the answer, which ends there or with the model's end token."""


def document(tasks: Sequence[Task]) -> str:
    """The tasks as the text that `task_file` reads back: compact JSON."""
    listed = [_CODEC.encode(task) for task in tasks]
    return json.dumps({"tasks": listed}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def digest(tasks: Sequence[Task]) -> str:
    """Of the tasks in their order: bits of passes mean nothing without it."""
    return "sha256:" + hashlib.sha256(document(tasks).encode(errors="surrogatepass")).hexdigest()


def from_document(listed: Sequence[Mapping[str, Any]]) -> tuple[Task, ...]:
    """Tasks that were checked. codec.Malformed for what is of no known shape."""
    return tuple(_CODEC.decode(Task, each, f"tasks[{index}]") for index, each in enumerate(listed))


# -- passes as bits ------------------------------------------------------------------------------------------


def bits(passes: Sequence[bool]) -> str:
    """Hexadecimal digits, four tasks each; the first task is the first digit's highest bit."""
    padded = [*passes, *[False] * (-len(passes) % 4)]
    return "".join(
        f"{sum(bit << (3 - place) for place, bit in enumerate(padded[at : at + 4])):x}"
        for at in range(0, len(padded), 4)
    )


def passes(digits: str, tasks: int) -> tuple[bool, ...]:
    """What `bits` wrote of so many tasks. ValueError for anything else."""
    if len(digits) != -(-tasks // 4) or not all(digit in "0123456789abcdef" for digit in digits):
        raise ValueError(f"{digits!r} are no passes of {tasks} tasks")
    found = tuple(bool(int(digits[place // 4], 16) >> (3 - place % 4) & 1) for place in range(tasks))
    if bits(found) != digits:
        raise ValueError(f"{digits!r} has passes beyond its {tasks} tasks")
    return found
