"""Text that streams: ids arrive one by one, and what they add to the text goes out as soon as it is certain.

Made by `Tokenizer.stream`, one for each generated sequence. Tokens are no pieces of text: one may end in the
middle of a character (byte-level vocabularies straddle them, sentencepiece spells rare ones byte by byte),
and a sentencepiece decoder drops the first space of whatever it is given. So the last tokens are always
decoded together, beginning with the end of the prompt, and what is new is found in their text. It must know
no tokenizer's inner workings: `decode` is all that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

_BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet."""
_LONGEST_CHARACTER_BYTES = 4
_WINDOW_TOKENS = 16
"""Decoded together: enough for a merge or a space to come out right, few enough to be quick."""
_LARGEST_WINDOW_TOKENS = 4 * _WINDOW_TOKENS
"""Of tokens among which none ends with a character."""


class TextStream:
    """The sum of what `push` and `finish` return is the sequence's text: what decoding the prompt with it has
    beyond decoding the prompt.

    prompt_ids: what the sequence continues; hidden: the tokens that `decode` leaves out of the text, by id.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt_ids: Sequence[int] = (),
        hidden: Mapping[int, str] | None = None,
    ) -> None:
        self.hidden = hidden or {}
        self._decode = decode
        # The window, and how many of its ids end with a character.
        self._ids, self._whole = self._end_of(prompt_ids)
        self._text = decode(self._ids)
        # What of its text is out. A broken end of the prompt is out too, unless what follows mends it.
        mended = self._text.removesuffix(_BROKEN)
        self._said: tuple[str, ...] = (self._text, mended, decode(self._ids[: self._whole]))
        self._doubt = 0  # times that the text changed while its end stayed broken and nothing went out

    def push(self, token_id: int) -> str:
        """Takes the next id; returns the text that is certain now, perhaps none."""
        self._ids.append(token_id)
        before, self._text = self._text, self._decode(self._ids)
        if not self._text.endswith(_BROKEN):
            return self._push_whole()
        self._doubt += self._text != before
        if self._doubt < _LONGEST_CHARACTER_BYTES:
            delta = self._say(self._text.rstrip(_BROKEN)) or ""
        else:  # more bytes than a character has: they are none, though the last may begin one
            delta = self._say_anew(self._text.removesuffix(_BROKEN))
        if delta:
            self._doubt = 0
        if len(self._ids) > _LARGEST_WINDOW_TOKENS:
            self._begin_at(len(self._ids) - _WINDOW_TOKENS)
        return delta

    def finish(self) -> str:
        """The rest, when no more ids come."""
        return self._say_anew(self._text)

    def _push_whole(self) -> str:
        delta = self._say_anew(self._text)
        self._said, self._doubt = (self._text,), 0
        if len(self._ids) > _WINDOW_TOKENS:
            self._begin_at(self._whole)
        self._whole = len(self._ids)
        return delta

    def _say(self, text: str) -> str | None:
        """What the window's text has beyond what is out; None when it does not go on from there."""
        for said in self._said:
            if text.startswith(said):
                if text != said:
                    self._said = (text,)
                return text[len(said) :]
        return None

    def _say_anew(self, text: str) -> str:
        """The same; text that does not go on is decoded by itself.

        It happens where bytes that were whole characters stop being so with the next ones, as sentencepiece
        decoders have it.
        """
        delta = self._say(text)
        if delta is not None:
            return delta
        held = len(self._text) - len(text)
        self._ids, self._whole = self._ids[self._whole :], 0
        self._text = self._decode(self._ids)
        self._said = (self._text[: len(self._text) - held],)
        return self._said[0]

    def _begin_at(self, place: int) -> None:
        """Lets the window begin later, unless its text would be out of step: empty, or with another end."""
        ids, unsaid = self._ids[place:], self._text[len(self._said[0]) :]
        text = self._decode(ids)
        if text and text.endswith(unsaid) and text.endswith(_BROKEN) == self._text.endswith(_BROKEN):
            self._ids, self._text, self._whole = ids, text, len(ids)
            self._said = (text.removesuffix(unsaid),)

    def _end_of(self, prompt_ids: Sequence[int]) -> tuple[list[int], int]:
        """The prompt's last tokens, from a character's beginning on and with some text, and how many of them
        end with a character."""
        length = _WINDOW_TOKENS
        while True:
            ends = [list(prompt_ids[-(length + more) :]) for more in range(_LONGEST_CHARACTER_BYTES)]
            if length >= len(prompt_ids) or self._decode(ends[0]):
                break
            length *= 2
        for end in ends:
            whole = self._whole_tokens(end)
            text = self._decode(end[:whole])
            if len(end) == len(prompt_ids) or (text and not text.startswith(_BROKEN)):
                return end, whole
        return ends[0], len(ends[0])

    def _whole_tokens(self, ids: list[int]) -> int:
        """How many of `ids` end with a character; all of them if even without the last few they do not."""
        counts = range(len(ids), max(-1, len(ids) - _LONGEST_CHARACTER_BYTES), -1)
        return next((n for n in counts if not self._decode(ids[:n]).endswith(_BROKEN)), len(ids))
