"""A tokenizer's own chat template, and the special tokens that it may name: files of a model's folder.

Read with the tokenizer, rendered by the door that takes chats in. A folder without a template, or with one
that cannot be read, is no fault of a model that only continues texts: whoever wants to chat is told why not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helios_server.errors import HeliosError
from helios_server.models.json_file import read_object

_FILE, _CONFIG, _SPECIAL = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"
_DEFAULT = "default"
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ChatTemplate:
    text: str = ""
    """Jinja; empty: there is none."""
    special: Mapping[str, str] = field(default_factory=dict)
    """What it may name, `bos_token` for example, to the token."""
    lacking: str = "the model's tokenizer has no chat template"
    """Why there is none."""

    @classmethod
    def read(cls, folder: Path) -> ChatTemplate:
        """Of a checkpoint's directory. Raises nothing."""
        try:
            config = _object(folder / _CONFIG)
            special = {**_special(_object(folder / _SPECIAL)), **_special(config)}
            file = folder / _FILE
            text = file.read_text(encoding="utf-8") if file.is_file() else _named(config.get("chat_template"))
        except (HeliosError, OSError, UnicodeDecodeError) as error:
            return cls(lacking=f"the model's chat template cannot be read ({error})")
        return cls(text, special) if text else cls()


def _object(file: Path) -> Mapping[str, Any]:
    return read_object(file, "Put the model's file back") if file.is_file() else {}


def _named(template: object) -> str:
    """One template, or the default one of several."""
    if isinstance(template, Sequence) and not isinstance(template, str):
        named = [each for each in template if isinstance(each, Mapping) and each.get("name") == _DEFAULT]
        template = named[0].get("template") if named else ""
    return template if isinstance(template, str) else ""


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    """Tokens as they stand, or as objects that hold them."""
    found = {name: config.get(name) for name in _TOKENS}
    texts = {
        name: token.get("content") if isinstance(token, Mapping) else token for name, token in found.items()
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}
