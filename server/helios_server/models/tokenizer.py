"""Text to token ids and back.

Called by the engine, the doors, the profiler and exit tuning. It reads tokenizer.json through the
`tokenizers` library: importing transformers would cost a serving process some 200 MB; that happens only for
a model without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from helios_server.errors import CheckpointError
from helios_server.models.chat_template import ChatTemplate
from helios_server.models.text_stream import TextStream

LONG_TEXT = 2000
"""Characters. A longer one is read without the interpreter's lock: whoever has it read on another thread
holds up nobody."""
_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)
"""Any of them makes a tokenizer, or says of which kind it is."""


class _Codec(Protocol):
    def lacking(self, vocab_size: int) -> list[int]: ...
    def encode(self, text: str, add_special: bool) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def special(self) -> Mapping[int, str]: ...


class Tokenizer:
    """A model's tokenizer. Build it with `Tokenizer.open`."""

    def __init__(self, codec: _Codec, chat: ChatTemplate | None = None) -> None:
        self.chat = chat or ChatTemplate()
        self._codec = codec
        self._special = codec.special()

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Reads the tokenizer of a checkpoint directory. CheckpointError: there is none, or it cannot be
        read."""
        if not any((path / name).is_file() for name in _FILES):
            problem = f"has no tokenizer (none of {', '.join(_FILES)})"
            raise CheckpointError(str(path), problem, "Put the model's tokenizer.json there")
        file = path / "tokenizer.json"
        try:
            return cls(_FastCodec(file) if file.is_file() else _SlowCodec(path), ChatTemplate.read(path))
        except (
            Exception
        ) as error:  # the libraries raise bare Exception, OSError, ValueError, ImportError alike
            words = str(error).splitlines() or [type(error).__name__]
            problem = f"the tokenizer cannot be read ({words[0]})"
            raise CheckpointError(str(path), problem, "Put the model's tokenizer.json there") from error

    def beside(self, path: Path) -> Tokenizer:
        """The same tokens, as a checkpoint directory with an equal tokenizer.json has them: its chats may be
        put into other words."""
        return Tokenizer(self._codec, ChatTemplate.read(path))

    def lacking(self, vocab_size: int) -> list[int]:
        """The ids below `vocab_size` for which there is no token."""
        return self._codec.lacking(vocab_size)

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

    def stream(self, skip_special: bool = True, prompt_ids: Sequence[int] = ()) -> TextStream:
        """A detokeniser for one sequence that continues `prompt_ids`."""
        hidden = self._special if skip_special else {}
        return TextStream(lambda ids: self.decode(ids, skip_special), prompt_ids, hidden)


class _FastCodec:
    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer as Fast

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads, which one text has no use for
        self._tokenizer = Fast.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def lacking(self, vocab_size: int) -> list[int]:
        return [token for token in range(vocab_size) if self._tokenizer.id_to_token(token) is None]

    def encode(self, text: str, add_special: bool) -> list[int]:
        if len(text) <= LONG_TEXT:
            return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)
        # A batch is read without the interpreter's lock, a text by itself is not.
        [read] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special)
        return list(read.ids)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def special(self) -> Mapping[int, str]:
        added = self._tokenizer.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items() if token.special}


class _SlowCodec:
    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def lacking(self, vocab_size: int) -> list[int]:
        return sorted(set(range(vocab_size)).difference(self._tokenizer.get_vocab().values()))

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special))

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
            )
        )

    def special(self) -> Mapping[int, str]:
        tokens = self._tokenizer
        return dict(zip(tokens.all_special_ids, tokens.all_special_tokens, strict=True))
