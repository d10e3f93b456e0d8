"""What the callers send: passages of a domain, none of them longer than the demo's memory has room for.

Used by the acts and by a bench. Words do not bound tokens: a line of a table is one word and a thousand of
them, and full depth, in memory for `ROWS` requests, refuses it by name. It must not know what serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from helios_server.exits.data import prompts
from helios_server.models.locate import locate
from helios_server.models.tokenizer import Tokenizer

ROWS = 4
"""Requests of the workload's length for which there is memory at full depth."""
_WORDS = {"stdlib": (55, 80)}
"""Least and most words of a prompt, where the domain's own would be too short to tell two models apart: the
longer the code, the further the shorter model falls behind."""


def passages(
    objects: Sequence[Mapping[str, Any]], domain: str, count: int, *, volumes: Path, seed: int = 0
) -> list[str]:
    """objects: the deployment is the last, in memory for `ROWS` requests. With its answer a prompt takes half
    of that at most, however its candidates read it: no two processes find the same room."""
    return prompts(domain, count, _WORDS.get(domain), seed, fits=_have_room(objects[-1]["spec"], volumes))


def _have_room(spec: Mapping[str, Any], volumes: Path) -> Callable[[str], bool]:
    isl, osl = spec["workload"]["isl"], spec["workload"]["osl"]
    most = ROWS // 2 * (isl + osl) - osl
    folders = {locate(candidate["uri"], volumes=volumes)[0] for candidate in spec["candidates"]}
    tokenizers = [Tokenizer.open(folder) for folder in folders]
    return lambda text: all(len(each.encode(text, add_special=True)) <= most for each in tokenizers)
