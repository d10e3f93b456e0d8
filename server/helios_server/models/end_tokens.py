"""The tokens that end a text: those of config.json and those of generation_config.json, together.

Called by `config.py`. Chat models name the end of a turn in the second file only. An id that the vocabulary
does not have is left out, as it can never be chosen; what is no id at all is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.errors import CheckpointError
from helios_server.models.json_file import shown

_FIELD = "eos_token_id"


@dataclass(frozen=True, slots=True)
class EndTokens:
    """ids: each below vocab_size, once, config.json's first. ignored: what was left out, in words."""

    ids: tuple[int, ...]
    ignored: tuple[str, ...]


def read_end_tokens(
    config: Mapping[str, Any], generation: Mapping[str, Any], default: int | None, vocab_size: int
) -> EndTokens:
    """config, generation: the two files, the second perhaps empty; default: where neither has the field."""
    files = {"config.json": config, "generation_config.json": generation}
    named = {file: _ids(file, fields[_FIELD]) for file, fields in files.items() if _FIELD in fields}
    if not named and default is not None:
        named["config.json"] = (default,)
    found = dict.fromkeys(token for ids in named.values() for token in ids)
    ignored = tuple(
        f"{file}: {_FIELD} {token} is outside the vocabulary of {vocab_size} tokens and is ignored"
        for file, ids in named.items()
        for token in ids
        if not 0 <= token < vocab_size
    )
    return EndTokens(tuple(token for token in found if 0 <= token < vocab_size), ignored)


def _ids(file: str, value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if any(type(token) is not int for token in ids):
        raise CheckpointError(
            _FIELD, f"expected a token id or a list of them, found {shown(value)}", f"Correct it in {file}"
        )
    return tuple(ids)
