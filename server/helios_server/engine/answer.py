"""One request being answered: its tokens become text, its text is searched for stop strings, its events go
out.

Kept by the engine beside the sequence that the scheduler sees. Lives in the engine thread; must not schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from helios_server.engine.request import (
    FailedEvent,
    FinishedEvent,
    FinishReason,
    GenerationRequest,
    OnEvent,
    Served,
    Times,
    TokensEvent,
)
from helios_server.engine.sampler import Choice
from helios_server.engine.sequence import Sequence
from helios_server.errors import HeliosError
from helios_server.models.text_stream import TextStream

_FIRST_MARK = 0xD800  # a surrogate: half of a pair in UTF-16, never in a text

logger = logging.getLogger(__name__)


class NewToken(NamedTuple):
    """A token that an answer took.

    confidence: in [0, 1]; breach: whether that is under the exit's threshold; waited: seconds since the token
    before, or since the request arrived when it is the first; last: why it is the last one.
    """

    answer: Answer
    confidence: float
    breach: bool
    waited: float
    first: bool
    last: FinishReason | None


class Answer:
    """arrived, scheduled, first_token, last_token: seconds on the monotonic clock, None until they happen."""

    def __init__(
        self,
        request: GenerationRequest,
        sequence: Sequence,
        stream: TextStream,
        on_event: OnEvent,
        arrived: float,
    ) -> None:
        self.request = request
        self.sequence = sequence
        self.arrived = arrived
        self.scheduled: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None
        self._stream = stream
        self._on_event = on_event
        self._text = StopText(request.sampling.stop, stream.hidden)
        self._confidence_sum = 0.0
        self._layer_sum = 0
        self._breaches = 0

    def push(
        self, choice: Choice, served: Served, breach: bool, eos_ids: tuple[int, ...], now: float
    ) -> NewToken:
        """Takes a new token and sends it out. Raises what making its text raises."""
        index = len(self.sequence.output_ids)
        self.sequence.append(choice.token_id, served)
        self._confidence_sum += choice.confidence
        self._layer_sum += served.depth
        self._breaches += breach
        waited = now - (self.last_token or self.arrived)
        self.first_token = self.first_token or now
        self.last_token = now
        reason = self._reason(choice.token_id, eos_ids)
        text = self._text.push(self._new_text(choice.token_id), index + 1 >= self.request.sampling.min_tokens)
        if reason:
            text += self._text.push(self._stream.finish(), True) + self._text.rest()
        if self._text.matched:
            reason = FinishReason.STOP
        logprobs = (choice.logprob,) if self.request.sampling.logprobs else ()
        token = (choice.token_id,)
        confidence = (choice.confidence,)
        self._on_event(
            TokensEvent(
                self.request.request_id, index, token, text, logprobs, confidence, (breach,), served.depth
            )
        )
        return NewToken(self, choice.confidence, breach, waited, not index, reason)

    def finish(self, reason: FinishReason, now: float) -> FinishedEvent:
        """Sends the end; returns it for the statistics."""
        produced = max(1, len(self.sequence.output_ids))
        event = FinishedEvent(
            request_id=self.request.request_id,
            ordinal=self.sequence.ordinal,
            reason=reason,
            text=self._text.emitted,
            output_ids=tuple(self.sequence.output_ids),
            matched_stop=self._text.matched,
            prompt_tokens=len(self.sequence.prompt_ids),
            preemptions=self.sequence.preemptions,
            spans=tuple(self.sequence.spans),
            mean_confidence=self._confidence_sum / produced,
            mean_layers=self._layer_sum / produced,
            breaches=self._breaches,
            times=Times(self.arrived, self.scheduled, self.first_token, now),
            prefix_queries=self.sequence.prefix_queries,
            prefix_hits=self.sequence.prefix_hits,
        )
        self._on_event(event)
        return event

    def fail(self, error: HeliosError) -> None:
        """Ends the request without an answer. Raises nothing: others may have to be told as well."""
        try:
            self._on_event(FailedEvent(self.request.request_id, error, tuple(self.sequence.spans)))
        except BaseException:
            logger.exception("request %r failed, and its caller cannot be told", self.request.request_id)

    def _new_text(self, token_id: int) -> str:
        """What the token adds to the text that is searched."""
        mark = self._text.mark_of(token_id)
        return self._stream.push(token_id) + (self._stream.finish() + mark if mark else "")

    def _reason(self, token_id: int, eos_ids: tuple[int, ...]) -> FinishReason | None:
        sampling = self.request.sampling
        ends = token_id in sampling.stop_token_ids or (token_id in eos_ids and not sampling.ignore_eos)
        if ends and len(self.sequence.output_ids) > sampling.min_tokens:
            return FinishReason.STOP
        if len(self.sequence.output_ids) >= self.sequence.max_tokens:
            return FinishReason.LENGTH
        return None


class StopText:
    """Text that streams, but never a part of a stop string.

    `matched`: the stop string that was met, or "". hidden: tokens that the text leaves out, by id. One that a
    stop string names is searched as a mark, which no text can hold, and taken out before the text goes out;
    spelt out by other tokens, the stop string is met as well.
    """

    def __init__(self, stops: tuple[str, ...], hidden: Mapping[int, str] | None = None) -> None:
        self.emitted = ""
        self.matched = ""
        named = {i: text for i, text in (hidden or {}).items() if text and any(text in s for s in stops)}
        self._marks = {token_id: chr(_FIRST_MARK + index) for index, token_id in enumerate(named)}
        self._no_marks = dict.fromkeys(map(ord, self._marks.values()))
        self._stops = {stop: stop for stop in stops} | {self._marked(stop, named): stop for stop in stops}
        self._held = ""

    def mark_of(self, token_id: int) -> str:
        """What stands for a token in the text to push; "" for one whose text is searched."""
        return self._marks.get(token_id, "")

    def push(self, delta: str, search: bool) -> str:
        """Takes new text; returns what can go out. search: whether a stop string may end the text yet."""
        if self.matched:
            return ""
        if not self._stops:
            self.emitted += delta
            return delta
        self._held += delta
        if search:
            found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
            if found:
                place, stop = min(found, key=lambda match: (match[0] + len(match[1]), match[0]))
                self.matched, self._held = self._stops[stop], self._held[:place]
                return self.rest()
        return self._emit(len(self._held) - self._possible_stop())

    def rest(self) -> str:
        """What was held back, when no more text comes."""
        return self._emit(len(self._held))

    def _marked(self, stop: str, named: Mapping[int, str]) -> str:
        """A stop string with marks in place of the tokens that it names, the longest name first."""
        for token_id in sorted(named, key=lambda token_id: -len(named[token_id])):
            stop = stop.replace(named[token_id], self._marks[token_id])
        return stop

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text with which a stop string could begin."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _emit(self, length: int) -> str:
        text, self._held = self._held[:length].translate(self._no_marks), self._held[length:]
        self.emitted += text
        return text
