"""The figures of a crowd: many streams on one pod, thousands of calls at one moment, and what a door costs.

`python -m bench.serve --crowd`. What a door costs is processor time a token: of a pod that serves through it,
against the engine alone in a process of its own, the same rows, prompts and threads, in turns; with a tiny
model nearly nothing is left but the door. Memory and loop lag are what the pod itself tells.
"""

from __future__ import annotations

import asyncio
import random
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.load import alone
from bench.report import Claim, claim
from bench.serve import engine_alone, figures
from bench.serve.doors import DOORS, Access, Door
from bench.serve.load import ANSWERED, FAILED, REFUSED, TOLD_WHEN, Caller, told
from bench.serve.pod import Pod, Settings, quantile, running

LAG = "helios_event_loop_lag_seconds"
_TOKENS = "helios_generation_tokens"
_PROMPT = 32
_STREAMS_NEW, _CALLS_NEW, _COST_NEW = 32, 4, 128
"""Tokens of an answer: of streams that stand at once, of calls at one moment, and where cost is measured."""
_STREAMS_MIB = 3072
"""That the pod of the streams is allowed. It takes as many rows as fit into a step; the others wait."""
_ROWS, _QUEUE = 32, 256
"""Of the other pods."""
_WORDS = {
    ANSWERED: "answered",
    TOLD_WHEN: "refused-with-hint",
    REFUSED: "refused-without-hint",
    FAILED: "failed",
}

Say = Callable[[str], None]


class Crowd:
    """figures: what it found, as far as it came. models: folders of checkpoints, the first for the crowd."""

    def __init__(self, models: Mapping[str, Path], options: Namespace, say: Say) -> None:
        self._models = models
        self._model = next(iter(models.values()))
        self._options = options
        self._say = say
        self.figures: dict[str, Any] = {}

    async def run(self) -> list[Claim]:
        claims = [*await self._streams(), *await self._calls()]
        for name, model in self._models.items():
            claims += await self._cost(name, model)
        return claims

    # -- streams that stand at once

    async def _streams(self) -> list[Claim]:
        options, claims = self._options, list[Claim]()
        settings = Settings(
            self._model, options.rows, options.streams, options.threads, _PROMPT + options.new
        )
        async with running(settings) as pod:
            for name in options.doors:
                found = await self._of_streams(pod, name)
                self.figures[f"streams-{name}"] = found
                claims += _streams_claims(f"streams-{options.streams}-{name}", found)
        return claims

    async def _of_streams(self, pod: Pod, name: str) -> Mapping[str, Any]:
        pod.forget_peak()
        resident, before = pod.resident_mib, (await pod.metrics()).buckets(LAG)
        caller = await self._burst(pod, name, self._options.streams, _STREAMS_NEW)
        after = (await pod.metrics()).buckets(LAG)
        return {
            **_ends(caller),
            "said": figures.words(caller.calls),
            "mibBefore": round(resident, 1),
            "mibAtMost": round(pod.peak_mib, 1),
            "mibAllowed": _STREAMS_MIB,
            "lagMs": {f"p{p}": round(1000 * quantile(before, after, p / 100), 2) for p in figures.PERCENTS},
        }

    async def _burst(self, pod: Pod, name: str, number: int, new: int) -> Caller:
        async with _door(pod, name) as door:
            caller = Caller(door, _PROMPT, new)
            telling = asyncio.create_task(told(caller, f"{number} at once, {name}", self._say))
            try:
                await caller.burst(number)
            finally:
                telling.cancel()
        return caller

    # -- calls at one moment

    async def _calls(self) -> list[Claim]:
        options, claims = self._options, list[Claim]()
        async with running(Settings(self._model, _ROWS, _QUEUE, options.threads)) as pod:
            for name in options.doors:
                caller = await self._burst(pod, name, options.calls, _CALLS_NEW)
                ends = _ends(caller)
                self.figures[f"calls-{name}"] = {**ends, "said": figures.words(caller.calls)}
                claims += _ends_claims(f"calls-{options.calls}-{name}", ends)
        return claims

    # -- processor time

    async def _cost(self, name: str, model: Path) -> list[Claim]:
        """Rounds, in each of which the engine and every door take their turn."""
        options = self._options
        settings = Settings(model, _ROWS, _QUEUE, options.threads, _PROMPT + _COST_NEW)
        rounds: list[dict[str, float]] = []
        async with running(settings) as pod:
            for number in range(options.rounds):
                self._say(f"processor time, {name}: round {number + 1} of {options.rounds}")
                engine = await asyncio.to_thread(
                    alone,
                    engine_alone.seconds_per_token,
                    settings,
                    _PROMPT,
                    _COST_NEW,
                    options.warm_up,
                    options.seconds,
                )
                doors = {each: await self._seconds_per_token(pod, each, settings) for each in options.doors}
                rounds.append({"engine": engine, **doors})
        self.figures[f"cpuSecondsPerToken-{name}"] = rounds
        return list(_cost_claims(name, rounds))

    async def _seconds_per_token(self, pod: Pod, name: str, settings: Settings) -> float:
        """Of the pod, over the middle of a load that keeps every row busy."""
        warm_up, seconds = self._options.warm_up, self._options.seconds
        async with _door(pod, name) as door:
            caller = Caller(door, _PROMPT, _COST_NEW, random.randrange(1 << 30))
            load = asyncio.create_task(caller.closed(settings.rows, warm_up + seconds + min(1, seconds)))
            await asyncio.sleep(warm_up)
            tokens, cpu = (await pod.metrics()).total(_TOKENS), pod.cpu_seconds
            await asyncio.sleep(seconds)
            tokens, cpu = (await pod.metrics()).total(_TOKENS) - tokens, pod.cpu_seconds - cpu
            await load
        if failed := [call.words for call in caller.calls if call.end != ANSWERED]:
            raise RuntimeError(f"{name}: {len(failed)} of {len(caller.calls)} calls failed: {failed[0]}")
        return cpu / tokens


def _door(pod: Pod, name: str) -> Door:
    kind = DOORS[name]
    return kind(kind.at(pod.ports[kind.PORT]), "", Access())


def _ends(caller: Caller) -> dict[str, int]:
    ends = Counter(call.end for call in caller.calls)
    return {word: ends[how] for how, word in _WORDS.items()}


def _ends_claims(name: str, found: Mapping[str, Any]) -> Iterator[Claim]:
    for word in _WORDS.values():
        yield _once(f"{name}-{word}", found[word], "requests")


def _streams_claims(name: str, found: Mapping[str, Any]) -> Iterator[Claim]:
    yield from _ends_claims(name, found)
    yield _once(f"{name}-memory-at-most", found["mibAtMost"], "MiB")
    yield _once(f"{name}-memory-of-allowed", round(found["mibAtMost"] / found["mibAllowed"], 3), "x")
    for percent, value in found["lagMs"].items():
        yield _once(f"{name}-loop-lag-{percent}", value, "ms")


def _cost_claims(name: str, rounds: list[dict[str, float]]) -> Iterator[Claim]:
    """Medians of the rounds, with their least and greatest."""
    for door in rounds[0]:
        yield claim(f"cpu-{name}-{door}", [1e6 * each[door] for each in rounds], "us/token")
    for door in (door for door in rounds[0] if door != "engine"):
        yield claim(f"cpu-{name}-{door}-over-engine", [each[door] / each["engine"] for each in rounds], "x")
        beyond = [1e6 * (each[door] - each["engine"]) for each in rounds]
        yield claim(f"cpu-{name}-{door}-beyond-engine", beyond, "us/token")


def _once(name: str, value: float, unit: str) -> Claim:
    return Claim(name, value, value, value, unit)
