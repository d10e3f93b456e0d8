"""What the bench asks of an engine, ours or another's: one small file in `peers/` for each.

Read by two sides: the bench, for what to install and which variants there are, and the process that runs the
engine in its own environment. So neither this module nor the top of a peer's file may import anything that is
not in the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Ids = Sequence[int]
"""Tokens by their ids in the model's vocabulary."""


class Cannot(Exception):
    """What this engine cannot do, in a sentence."""


class Adapter(Protocol):
    """An engine with the model loaded."""

    @property
    def numerics(self) -> str:
        """How it computes, in a phrase: weights, activations, keys and values, instruction set."""
        ...

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        """`new` tokens for each prompt, greedily, through every end token, all prompts at once.

        It must find nothing of a prompt in a cache: the same work each time.
        """
        ...

    def score(self, windows: Sequence[Ids]) -> float:
        """Bits of every token but the first of each window, in all. Raises Cannot."""
        ...


@dataclass(frozen=True)
class Setting:
    """What an engine is opened with. folder: what `prepare` made of the model, or an empty one; rows: most
    prompts at once; tokens: most of one row, prompt and output."""

    model: Path
    folder: Path
    variant: str
    threads: int
    rows: int
    tokens: int


@dataclass(frozen=True)
class Variant:
    """One number format. bits: of a stored weight; default: measured unless others are named."""

    bits: int
    default: bool = True


@dataclass(frozen=True)
class Peer:
    """An engine as it is installed and opened.

    requirements: for pip, exact; none: it runs in the environment of the bench. unwanted: packages to remove
    after that. environment: variables for a virtual environment at a path and so many threads; pinned: the
    variables that hold it to an instruction set, by the set's name; without one it cannot be held to that.
    prepare: writes what the engine reads, from a Hugging Face checkpoint, into a folder, for a variant.
    """

    title: str
    variants: Mapping[str, Variant]
    open: Callable[[Setting], Adapter]
    requirements: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    environment: Callable[[Path, int], Mapping[str, str]] = lambda venv, threads: {}
    pinned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prepare: Callable[[Path, Path, str], None] | None = None


TORCH_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
}
"""What holds torch and the libraries under it to AVX2."""
