"""What a run is told as: figures for the document, and claims. Called by `__main__` at the end. No I/O."""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.loop import compare, figures, parts
from bench.loop.arms import PEER, TOKENS, Arms
from bench.loop.figures import Figures, Run
from bench.loop.quality import Worth
from bench.loop.run import Measured
from bench.loop.spent import DECLARED
from bench.loop.trace import Shape
from bench.report import Claim
from bench.serve.figures import Slo

_SETTINGS = (
    "min_quality",
    "callers",
    "load",
    "seed",
    "slo_ttft",
    "slo_itl",
    "audit_percent",
    "every_requests",
)


@dataclass(frozen=True)
class Result:
    """options: of the command."""

    arms: Arms
    shape: Shape
    found: Measured
    worth: Worth
    options: Namespace

    @cached_property
    def _known(self) -> Mapping[str, Figures]:
        """By arm, of those that had the trace."""
        known = defaultdict[str, list[Figures]](list)
        for run in self.found.runs:
            known[run.arm].append(self._of(run))
        return {arm: Figures.together(rounds) for arm, rounds in known.items()}

    def _of(self, run: Run) -> Figures:
        return figures.figures(run, self.worth, Slo(self.options.slo_ttft, self.options.slo_itl))

    @cached_property
    def _turns(self) -> Mapping[str, compare.Turns]:
        """By loop."""
        turns = defaultdict[str, dict[str, list[tuple[Figures, Figures]]]](lambda: defaultdict(list))
        for pair in self.found.pairs:
            turns[pair.loop.arm][pair.other.arm].append((self._of(pair.loop), self._of(pair.other)))
        return turns

    @property
    def _firsts(self) -> Mapping[str, Run]:
        """Of each arm the first round, which tells what is no mean: its choice and its changes."""
        firsts: dict[str, Run] = {}
        for run in self.found.runs:
            firsts.setdefault(run.arm, run)
        return firsts

    @property
    def _statics(self) -> Mapping[str, Figures]:
        return {name: self._known[name] for name in self.arms.fixed.names if name in self._known}

    @property
    def _setting(self) -> str:
        """As claims name it."""
        traffic = "steady" if self.shape.is_steady else "shifting"
        return f"{traffic}-{'memory-bound' if self.arms.fixed.memory_mib else 'free'}"

    @property
    def _is_declared(self) -> bool:
        return any(run.spent.source == DECLARED for run in self.found.runs)

    # -- the document ----------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        fixed, options, found = self.arms.fixed, self.options, self.found
        return {
            "model": Path(fixed.subject.uri).name,
            "dtype": fixed.dtype,
            "memoryMiB": fixed.memory_mib,
            "setting": self._setting,
            "requests": self.shape.requests,
            "kinds": list(self.shape.kinds),
            "calmRequestsPerSecond": round(self.shape.calm, 3),
            "burstRequestsPerSecond": round(self.shape.burst, 3),
            **{name: getattr(options, name) for name in _SETTINGS},
            "exitThreshold": self.worth.threshold,
            "energySource": self._energy_source(),
            "arms": {arm: self._arm(run) for arm, run in self._firsts.items()},
            "bestStatic": {each: self._best(each) for each in options.objectives},
            "turns": dict(self._told_turns()),
            "partsTokensPerSecond": {
                name: [round(rate, 1) for rate in rates] for name, rates in found.parts.items()
            },
            "asked": options.only,
            "leftOut": found.left_out,
            "errors": found.errors,
        }

    def _best(self, objective: str) -> str | None:
        least = self.options.min_quality
        if turns := self._turns.get(self.arms.loops()[objective]):
            return compare.best_of_turns(objective, turns, least)
        return compare.best(self._statics, objective, least)

    def _told_turns(self) -> Iterator[tuple[str, Mapping[str, list[float]]]]:
        """Ratios of pairs, in what the loop is for, by static arm."""
        for objective, arm in self.arms.loops().items():
            turns, metric = self._turns.get(arm, {}), compare.METRIC[objective]
            yield (
                arm,
                {
                    name: [round(each, 4) for each in compare.ratios(pairs, metric)]
                    for name, pairs in turns.items()
                },
            )

    def _energy_source(self) -> str:
        if self._is_declared:
            watts = f"{self.options.watts:g} W of a busy core"
            return f"declared: {watts} times CPU-seconds, an estimate of which nothing is claimed"
        return ", ".join({f"{run.spent.source}, the processor's own counter" for run in self.found.runs})

    def _arm(self, run: Run) -> dict[str, Any]:
        known = self._known[run.arm]
        return {
            "seconds": round(run.seconds, 1),
            "failed": known.failed,
            "byKind": known.kinds,
            "rounds": [one.whole for one in known.rounds],
            **run.facts,
        }

    # -- claims ----------------------------------------------------------------------------------------------

    def claims(self) -> Iterator[Claim]:
        for each in self._all_claims():
            yield figures.as_declared(each) if self._is_declared else each

    def _all_claims(self) -> Iterator[Claim]:
        for name, one in self._known.items():
            yield from figures.claims(name, one, with_quality=name != PEER)
        if self.found.pairs:
            yield from self._ratios_in_turns()
        else:
            for as_published in (False, True):
                yield from self._ratios(as_published)
        if self.found.parts:
            yield from parts.claims(self.found.parts)
        for arm, run in self._firsts.items():
            if "changes" in run.facts:
                yield from _changes(arm, run.facts["changes"])

    def _ratios(self, as_published: bool) -> Iterator[Claim]:
        known, fixed = self._known, self.arms.fixed
        loops = {o: known[arm] for o, arm in self.arms.loops(as_published).items() if arm in known}
        others = {name: known[name] for name in (TOKENS, PEER) if name in known}
        full = known.get(fixed.names[0])
        setting = self._setting + ("-as-published" if as_published else "")
        least = self.options.min_quality
        yield from compare.claims(loops, self._statics, others, full, least, setting)

    def _ratios_in_turns(self) -> Iterator[Claim]:
        full, least = self.arms.fixed.names[0], self.options.min_quality
        for objective, arm in self.arms.loops().items():
            if turns := self._turns.get(arm):
                yield from compare.in_turns(objective, turns, full, least, self._setting)


def _changes(arm: str, changes: Sequence[Mapping[str, Any]]) -> Iterator[Claim]:
    for what, total, unit in (
        ("changes", len(changes), "changes"),
        ("change-seconds", sum(each["seconds"] for each in changes), "s"),
        ("requests-that-waited", sum(each["requestsThatWaited"] for each in changes), "requests"),
    ):
        yield Claim(f"{arm}-{what}", total, total, total, unit)
