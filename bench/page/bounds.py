"""What is asked of figures, and whether a committed result reaches it.

Read by the page. A bound stands here once, in words and as a number, by the bench that prints its claims; the
page says of each whether it is reached, so that nobody writes "reached" by hand. It must not read files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    REACHED = "reached"
    WITHIN = "reached by the median, not by every round"
    MISSED = "not reached"


@dataclass(frozen=True)
class Bound:
    """`claims`: a pattern of ids that `bench` (a module) prints; `least` or `most`: what each is to be.
    `isa`: of results that are held to that instruction set alone, or of all others ("" and "-avx2")."""

    bench: str
    asked: str
    claims: str
    least: float | None = None
    most: float | None = None
    isa: str = ""

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def shortfall(self, claim: Mapping[str, Any]) -> float:
        """How far the value is on the wrong side, as a share of the bound; negative where it is not."""
        if self.least is not None:
            return float((self.least - claim["value"]) / (abs(self.least) or 1))
        return float((claim["value"] - (self.most or 0)) / (abs(self.most or 0) or 1))

    @property
    def words(self) -> str:
        if self.least is not None:
            return f"at least {self.least:g}"
        return f"at most {self.most:g}" if self.most else "none"


@dataclass(frozen=True)
class Held:
    """A bound beside the claims of one result: what the least of them comes to, how many miss it, and which
    of those that come to this is farthest off."""

    bound: Bound
    verdict: Verdict
    claims: int
    missing: int
    worst: Mapping[str, Any]


def held(result: Mapping[str, Any], bounds: Sequence[Bound]) -> Iterator[Held]:
    """Of the bounds that a result has claims for."""
    for bound in bounds:
        if not _is_of(bound, result):
            continue
        found = [claim for claim in result.get("claims", ()) if re.fullmatch(bound.claims, claim["id"])]
        if found:
            verdicts = [_verdict(bound, claim) for claim in found]
            verdict = max(verdicts, key=list(Verdict).index)
            those = [claim for claim, its in zip(found, verdicts, strict=True) if its is verdict]
            missing = verdicts.count(Verdict.MISSED)
            yield Held(bound, verdict, len(found), missing, max(those, key=bound.shortfall))


def _is_of(bound: Bound, result: Mapping[str, Any]) -> bool:
    if bound.bench != module_of(result):
        return False
    isa = result.get("figures", {}).get("isa", "")
    return bound.isa in ("", isa) if not bound.isa.startswith("-") else isa != bound.isa[1:]


def _verdict(bound: Bound, claim: Mapping[str, Any]) -> Verdict:
    if not bound.holds(claim["value"]):
        return Verdict.MISSED
    every = bound.holds(claim["low"]) and bound.holds(claim["high"])
    return Verdict.REACHED if every else Verdict.WITHIN


def module_of(result: Mapping[str, Any]) -> str:
    """The bench that printed a result: "bench.engine" of "python -m bench.engine --output json"."""
    return str(result["command"]).split()[2]


_ENGINE, _BUDGETS, _LOOP = "bench.engine", "bench.engine.budgets", "bench.loop"
_NATIVE, _AVX2 = "-avx2", "avx2"
BOUNDS = (
    Bound(_ENGINE, "decode at 1 row, over the best engine of its class", r"decode-.*-batch-1-\d+-bit-.*",
          least=0.95, isa=_NATIVE),
    Bound(_ENGINE, "decode at 8, 32 and 64 rows, over the best engine of its class",
          r"decode-.*-batch-(8|32|64)-\d+-bit-.*", least=1.1, isa=_NATIVE),
    Bound(_ENGINE, "held to AVX2: decode at 1 row, over the best engine of its class",
          r"decode-.*-batch-1-\d+-bit-.*", least=1.1, isa=_AVX2),
    Bound(_ENGINE, "held to AVX2: decode at 8 and 32 rows, over the best engine of its class",
          r"decode-.*-batch-(8|32)-\d+-bit-.*", least=1.15, isa=_AVX2),
    Bound(_ENGINE, "end to end at 1 row, over the best engine of its class",
          r"end-to-end-64-48-batch-1-\d+-bit-.*", least=0.95),
    Bound(_ENGINE, "end to end at 8 and 32 rows, over the best engine of its class",
          r"end-to-end-64-48-batch-(8|32)-\d+-bit-.*", least=1.05),
    Bound(_ENGINE, "prefill, over the best engine of its class", r"prefill-.*-\d+-bit-.*", least=0.95,
          isa=_NATIVE),
    Bound(_ENGINE, "held to AVX2: prefill, over the best engine of its class", r"prefill-.*-\d+-bit-.*",
          least=0.8, isa=_AVX2),
    Bound(_ENGINE, "share of what reading memory allows, 16 bits, 1 row",
          r"roofline-.*-batch-1-helios-b?float16", least=0.85),
    Bound(_ENGINE, "share of what reading memory allows, int8, 1 row", r"roofline-.*-batch-1-helios-int8",
          least=0.7),
    Bound(_ENGINE, "share of a step outside kernels, 1 row", r"outside-kernels-batch-1-helios-.*", most=0.08),
    Bound(_ENGINE, "share of a step outside kernels, 32 rows", r"outside-kernels-batch-32-helios-.*",
          most=0.1),
    Bound(_BUDGETS, "a step at a layer budget, over the sum of its parts", r"step-over-parts-.*", most=1.05),
    Bound(_BUDGETS, "gain of a layer budget, over the ideal one", r"share-of-ideal-.*", least=0.95),
    Bound("bench.engine.timing_law", "the timing law's worst error, percent", r"law-worst-percent-.*",
          most=10),
    Bound("bench.engine.crowded", "throughput where weights crowd the memory, over what is possible",
          r"share-of-possible", least=0.9),
    Bound("bench.frontier", "rows off the memory law, percent", r"rows-percent-off-the-law-in-.*", most=2),
    Bound(_LOOP, "on steady traffic: what an objective is for, over the best static choice in hindsight",
          r"(throughput|latency|energy)-over-best-static-steady-\w+(-\w+)?", least=0.95),
    Bound(_LOOP, "on shifting traffic where memory binds: throughput over the best static choice",
          r"throughput-over-best-static-shifting-memory-bound", least=1.05),
    Bound(_LOOP, "quality over that of the best static choice in hindsight",
          r"quality-over-best-static-.*", least=0.99),
    Bound(_LOOP, "what an objective is for, over full depth as published, but for 3 % of noise",
          r"\w+-over-full-depth-.*", least=0.97),
    Bound(_LOOP, "where memory binds: throughput over single-model token exit",
          r"throughput-over-token-exit-\w+-memory-bound", least=1.48),
    Bound(_LOOP, "where memory binds: response time of single-model token exit over ours",
          r"response-time-over-token-exit-\w+-memory-bound", least=1.39),
    Bound(_LOOP, "where memory binds: energy a token of single-model token exit over ours",
          r"energy-over-token-exit-\w+-memory-bound", least=1.1),
    Bound(_LOOP, "where memory binds: batch over that of single-model token exit",
          r"batch-over-token-exit-\w+-memory-bound", least=3.7),
    Bound(_LOOP, "requests that failed", r".*-failed", most=0),
    Bound("bench.joint", "requests that failed", r"failed", most=0),
    Bound("bench.operator", "writes at rest, in all, a second", r"writes-at-rest", most=1),
    Bound("bench.operator", "a change of a spec applied, 95th percentile, seconds", r"change-applied-p95",
          most=2),
    Bound("bench.operator", "growth of the operator's memory in ten minutes, percent", r"operator-rss-growth",
          most=1),
    Bound("bench.pair", "quality of a loop with two models, over the better one alone",
          r"quality-both-over-best-alone", least=1),
    Bound("bench.pair", "requests that failed", r"failed", most=0),
    Bound("bench.requantize", "streams lost by another precision", r"lost", most=0),
    Bound("bench.scenarios", "requests that failed", r".*-failed-requests", most=0),
    Bound("bench.scenarios", "streams across a change that differ from a run alone",
          r".*-streams-that-differ", most=0),
    Bound("bench.serve", "requests that failed", r".*-failed", most=0),
    Bound("bench.serve", "requests refused without a hint when to come again", r".*-refused-without-hint",
          most=0),
    Bound("bench.serve", "CPU time per token of an API, over the engine alone", r"cpu-smollm2.*-over-engine",
          most=1.15),
    Bound("bench.serve", "a pause of the event loop, 99th percentile, ms", r".*-loop-lag-p99", most=50),
    Bound("bench.steady", "changes on steady traffic", r"changes-in-all", most=0),
    Bound("bench.steady", "requests that failed", r"failed-requests-in-all", most=0),
    Bound("tests.long", "property tests that failed", r"failed", most=0),
)  # fmt: skip
