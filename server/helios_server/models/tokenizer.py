"""Text to token ids and back, and text that streams.

Called by the engine, the doors, the profiler and exit tuning. It reads tokenizer.json through the
`tokenizers` library: importing transformers would cost a serving process some 200 MB; that happens only for
a model without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from helios_server.errors import CheckpointError

_BROKEN = "\ufffd"
_LONGEST_CHARACTER_BYTES = 4


class _Codec(Protocol):
    def encode(self, text: str, add_special: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...


class Tokenizer:
    """A model's tokenizer. Build it with `Tokenizer.open`."""

    def __init__(self, codec: _Codec) -> None:
        self._codec = codec

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Reads the tokenizer of a checkpoint directory."""
        file = path / "tokenizer.json"
        try:
            return cls(_FastCodec(file) if file.is_file() else _SlowCodec(path))
        except (
            Exception
        ) as error:  # the libraries raise bare Exception, OSError, ValueError, ImportError alike
            problem = f"the tokenizer cannot be read ({str(error).splitlines()[0]})"
            raise CheckpointError(str(path), problem, "Put the model's tokenizer.json there") from error

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Token ids of a text. add_special: with what the model puts around a text (a begin token, for
        most)."""
        return self._codec.encode(text, add_special)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of token ids."""
        return self._codec.decode(ids, skip_special)

    def bytes_of(self, ids: Sequence[int]) -> int:
        """UTF-8 bytes of the text of `ids`, special tokens included: the divisor of bits per byte."""
        return len(self.decode(ids, skip_special=False).encode())

    def stream(self, skip_special: bool = True) -> TextStream:
        """A detokeniser for one generated sequence."""
        return TextStream(self, skip_special)


class TextStream:
    """Turns ids that arrive one by one into text deltas that never split a character; their sum is the
    whole text."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._ids: list[int] = []
        self._start = 0  # from here on tokens are decoded together, so that merges and spaces come out right
        self._emitted = 0  # tokens before this one are out

    def push(self, token_id: int) -> str:
        """Takes the next id; returns the text that is certain now, perhaps none."""
        self._ids.append(token_id)
        text = self._pending()
        incomplete = text.endswith(_BROKEN) and len(self._ids) - self._emitted < _LONGEST_CHARACTER_BYTES
        return "" if incomplete else self._emit(text)

    def finish(self) -> str:
        """The rest, when no more ids come."""
        return self._emit(self._pending())

    def _pending(self) -> str:
        whole = self._tokenizer.decode(self._ids[self._start :], self._skip_special)
        known = self._tokenizer.decode(self._ids[self._start : self._emitted], self._skip_special)
        return whole[len(known) :]

    def _emit(self, text: str) -> str:
        self._start, self._emitted = self._emitted, len(self._ids)
        return text


class _FastCodec:
    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer as Fast

        self._tokenizer = Fast.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))


class _SlowCodec:
    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special))

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
            )
        )
