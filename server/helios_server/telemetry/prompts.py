"""Live prompts: the newest few, in memory only, and the frozen sets that a profiling Job may fetch.

Filled by the generation service, read by the control service. Without consent (`live_prompts` 0) it holds
nothing, and withdrawn consent empties it. Prompts must not be logged, counted by content, or written
anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MIN_TOKENS = 8
"""A shorter prompt says too little to be scored."""
_AFTER_ALARM = 16
"""Prompts that suffice to judge new traffic."""
_KEPT_SETS = 4
"""A Job that was told of one may take a while to come for it."""


@dataclass(frozen=True)
class FrozenSet:
    """digest: sha256 over the prompts. from_request, to_request: ordinals of its oldest and newest prompt."""

    digest: str
    prompts: tuple[str, ...]
    from_request: int
    to_request: int


class LivePrompts:
    """A ring of the newest `size` prompts. Used by the event loop only."""

    def __init__(self, size: int = 0) -> None:
        self._ring: deque[tuple[int, str]] = deque(maxlen=size)
        self._sets: deque[FrozenSet] = deque(maxlen=_KEPT_SETS)
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
            self._awaited_since = None
        self._answered = False

    def add(self, ordinal: int, tokens: int, text: Callable[[], str]) -> None:
        """A prompt that was served. ordinal: of its request since boot; `text` is asked only with consent."""
        if not self._ring.maxlen or tokens < MIN_TOKENS:
            return
        self._ring.append((ordinal, text()))
        if len(self._ring) == self._ring.maxlen and self._all_newer_than(self._frozen_to()):
            self._freeze(list(self._ring))
            self._answered = False
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
        """The set with this digest, if it is kept; the newest for ""."""
        if not digest:
            return self.newest
        return next((frozen for frozen in self._sets if frozen.digest == digest), None)

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
        if self._awaited_since is not None and min(ordinals) > self._awaited_since:
            self._awaited_since = None

    def _all_newer_than(self, ordinal: int) -> bool:
        return all(prompt[0] > ordinal for prompt in self._ring)

    def _frozen_to(self) -> int:
        return self._sets[-1].to_request if self._sets else -1


def prompts_digest(prompts: Sequence[str]) -> str:
    """The same that the operator computes for prompts given in a spec."""
    text = json.dumps(list(prompts), ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
