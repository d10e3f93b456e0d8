"""An engine that computes nothing, for tests of the bench's protocol: the variant says what it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.engine.adapter import Adapter, Cannot, Ids, Peer, Setting, Variant


class Fake:
    def __init__(self, setting: Setting) -> None:
        print("what libraries print, on the stream of answers")
        if setting.variant == "closed":
            raise ValueError("this wheel does not start here")
        self._setting = setting
        self.numerics = f"{(setting.folder / 'made').read_text()}, {os.environ.get('FAKE_ISA', 'native')}"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        if self._setting.variant == "dying" and len(prompts) > 1:
            print("out of memory", file=sys.stderr, flush=True)
            os._exit(9)
        short = self._setting.variant == "short"
        return [[prompt[0]] * (new - short) for prompt in prompts]

    def score(self, windows: Sequence[Ids]) -> float:
        if self._setting.variant == "mute":
            raise Cannot("it tells no probabilities")
        return sum(len(window) - 1.0 for window in windows)


def _prepare(model: Path, folder: Path, variant: str) -> None:
    (folder / "made").write_text(f"{variant} of {model.name}")


def _open(setting: Setting) -> Adapter:
    return Fake(setting)


PEER = Peer(
    title="Fake",
    variants={name: Variant(16) for name in ("good", "closed", "dying", "short", "mute")},
    open=_open,
    pinned={"avx2": {"FAKE_ISA": "avx2"}},
    prepare=_prepare,
)
