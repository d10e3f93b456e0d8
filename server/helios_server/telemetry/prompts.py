"""Live prompts: the newest few, in memory only, and the frozen sets that a profiling Job may fetch.

Filled by the generation service, read by the control service. Without consent (`live_prompts` 0) it holds
nothing, and withdrawn consent empties it. Prompts must not be logged, counted by content, or written
anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MIN_TOKENS = 8
"""A shorter prompt says too little to be scored."""
_AFTER_ALARM = 16
"""Prompts that suffice to judge new traffic."""
_KEPT_SETS = 12
_SPACING_SECONDS = 15.0
"""A Job that was told of a set may take minutes to come for it, however many requests come meanwhile."""
_IN_USE_SECONDS = 900.0
"""A set that was fetched is fetched again for the other backbones, one Job after another."""


@dataclass(frozen=True)
class FrozenSet:
    """digest: sha256 over the prompts. from_request, to_request: ordinals of its oldest and newest prompt."""

    digest: str
    prompts: tuple[str, ...]
    from_request: int
    to_request: int


class LivePrompts:
    """A ring of the newest `size` prompts. Used by the event loop only."""

    def __init__(self, size: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring: deque[tuple[int, str]] = deque(maxlen=size)
        self._sets: list[FrozenSet] = []
        self._clock = clock
        self._due = -math.inf
        self._fetched: dict[str, float] = {}
        self._awaited_since: int | None = None
        self._answered = False

    def resize(self, size: int) -> None:
        """The limits changed: keeps the newest `size` from now on, and the next alarm is about something new.

        0 forgets everything, frozen sets included.
        """
        if size != self._ring.maxlen:
            self._ring = deque(self._ring, maxlen=size)
        if size == 0:
            self._sets.clear()
            self._fetched.clear()
            self._awaited_since = None
        self._answered = False
        self._due = -math.inf

    def add(self, ordinal: int, tokens: int, text: Callable[[], str]) -> None:
        """A prompt that was served. ordinal: of its request since boot; `text` is asked only with consent."""
        if not self._ring.maxlen or tokens < MIN_TOKENS:
            return
        self._ring.append((ordinal, text()))
        if self._is_full_of_news() and self._clock() >= self._due:
            self._freeze(list(self._ring))
            self._answered = False
            self._due = self._clock() + _SPACING_SECONDS
        else:
            self._freeze_for_alarm()

    def alarmed(self, since_request: int) -> None:
        """Traffic changed after `since_request`: freeze a set of what came later as soon as there is enough
        of it.

        A shift that persists raises its alarm again and again. The first one counts until it is answered, and
        then no other until the ring has turned over, so that sets do not follow each other faster than Jobs
        can fetch.
        """
        if not self._ring.maxlen or self._answered or self._awaited_since is not None:
            return
        newest = self.newest
        if newest is None or newest.from_request <= since_request:
            self._awaited_since = since_request
            self._freeze_for_alarm()

    @property
    def newest(self) -> FrozenSet | None:
        return self._sets[-1] if self._sets else None

    def get(self, digest: str) -> FrozenSet | None:
        """The set with this digest, if it is kept; the newest for "". It is kept for a while longer then."""
        wanted = digest or (self.newest.digest if self.newest else "")
        found = next((frozen for frozen in self._sets if frozen.digest == wanted), None)
        if found:
            self._fetched[wanted] = self._clock()
        return found

    def _freeze_for_alarm(self) -> None:
        if self._awaited_since is None:
            return
        later = [prompt for prompt in self._ring if prompt[0] > self._awaited_since]
        if len(later) >= min(self._ring.maxlen or 0, _AFTER_ALARM):
            self._freeze(later)
            self._answered = True

    def _freeze(self, prompts: list[tuple[int, str]]) -> None:
        texts = tuple(text for _, text in prompts)
        ordinals = [ordinal for ordinal, _ in prompts]
        self._sets.append(FrozenSet(prompts_digest(texts), texts, min(ordinals), max(ordinals)))
        self._forget()
        if self._awaited_since is not None and min(ordinals) > self._awaited_since:
            self._awaited_since = None

    def _forget(self) -> None:
        """The oldest that are too many, but for those in use."""
        since = self._clock() - _IN_USE_SECONDS
        self._fetched = {digest: when for digest, when in self._fetched.items() if when > since}
        spare = [frozen for frozen in self._sets if frozen.digest not in self._fetched]
        gone = spare[: max(0, len(self._sets) - _KEPT_SETS)]
        self._sets = [frozen for frozen in self._sets if frozen not in gone]

    def _is_full_of_news(self) -> bool:
        frozen_to = self._sets[-1].to_request if self._sets else -1
        return len(self._ring) == self._ring.maxlen and all(prompt[0] > frozen_to for prompt in self._ring)


def prompts_digest(prompts: Sequence[str]) -> str:
    """The same that the operator computes for prompts given in a spec."""
    text = json.dumps(list(prompts), ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
