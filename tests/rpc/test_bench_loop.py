"""`bench.loop`: the trace, its replay, what becomes of it, and a run of two arms through real pods."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from helios_contract.serves import REFERENCE, Precision
from helios_operator.api import parse, validation
from helios_operator.api.status import HistoryEntry, Served
from helios_operator.api.types import Decision
from hypothesis import given
from hypothesis import strategies as st

from bench.frontier.subject import Subject
from bench.loop import compare, figures, page, parts, turns
from bench.loop.arms import TOKENS, Arm, Arms, Open
from bench.loop.figures import Figures, Run
from bench.loop.looping import Asked, costs
from bench.loop.peer import answering
from bench.loop.pods import NEVER, Fixed
from bench.loop.quality import Worth, measured
from bench.loop.replay import Answered, asking, replay
from bench.loop.result import Result
from bench.loop.run import Bench, Measured
from bench.loop.spent import Spent, cpu_seconds_of_children
from bench.loop.trace import KINDS, Arrival, Shape, drawn, sliced
from bench.loop.turns import Pairing
from bench.report import Claim
from bench.serve.figures import Slo
from examples.demo.traffic import Stream
from tests.rpc.pods import EXITS, LAYERS, serving
from tests.sizes import LONG

TEXTS = {"prose": ["a whale swam", "the ship sailed on"], "code": ["x = 1", "def f(): pass"]}
INT8 = Precision("int8", "auto")
ROOT = Path(__file__).parents[2]


def shape(requests: int = 40, kinds: Sequence[str] = KINDS, **changes: Any) -> Shape:
    return Shape(**{"requests": requests, "kinds": kinds, "calm": 4.0, "burst": 100.0, "seed": 1} | changes)


# -- the trace -----------------------------------------------------------------------------------------------


@given(st.integers(4, 90), st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True))
def test_a_trace_has_all_its_requests_a_calm_and_a_burst_of_each_kind(
    requests: int, kinds: list[str]
) -> None:
    trace = drawn(shape(requests, kinds), TEXTS)
    assert [each.number for each in trace] == list(range(requests))
    assert all(before.at <= after.at for before, after in pairwise(trace))
    assert list(dict.fromkeys(each.kind for each in trace)) == kinds[:requests]
    phases = list(dict.fromkeys((each.kind, each.is_burst) for each in trace))
    assert phases == sorted(phases, key=lambda phase: (kinds.index(phase[0]), phase[1]))
    assert all(each.text in TEXTS[each.domain] for each in trace)
    assert all(each.domain == each.kind for each in trace if each.kind != "mixed")


def test_a_seed_is_a_trace_and_rates_are_kept() -> None:
    assert drawn(shape(), TEXTS) == drawn(shape(), TEXTS) != drawn(shape(seed=2), TEXTS)
    trace = drawn(shape(3000, ["prose"]), TEXTS)
    calm = [each.at for each in trace if not each.is_burst]
    burst = [each.at for each in trace if each.is_burst]
    assert len(calm) / calm[-1] == pytest.approx(4, rel=0.1)
    assert len(burst) / (burst[-1] - calm[-1]) == pytest.approx(100, rel=0.1)
    assert {each.domain for each in drawn(shape(60), TEXTS) if each.kind == "mixed"} == {"prose", "code"}


# -- the replay ----------------------------------------------------------------------------------------------


async def test_a_request_that_finds_all_callers_busy_waits_and_its_wait_counts() -> None:
    under_way = most = 0

    async def ask(arrival: Arrival) -> Stream:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        sent = time.monotonic()
        await asyncio.sleep(0.02)
        under_way -= 1
        return stream(sent, sent + 0.01, time.monotonic())

    trace = [replace(each, at=0.0) for each in drawn(shape(9), TEXTS)]
    answered = await replay(trace, ask, 3, lambda _: None)
    assert [each.arrival for each in answered] == trace
    assert most == 3
    assert sorted(each.stream.ended - each.stream.sent for each in answered)[-1] >= 0.06


# -- figures -------------------------------------------------------------------------------------------------


def stream(sent: float, began: float, ended: float, tokens: int = 10, **changes: Any) -> Stream:
    return replace(Stream("prose", "a", "", (0,) * tokens, (), sent, began, ended), **changes)


def answered(kind: str, is_burst: bool, *streams: Stream) -> list[Answered]:
    return [Answered(Arrival(0, 0.0, kind, is_burst, "prose", "a"), each) for each in streams]


class Clock:
    """A meter of one joule a second."""

    source = "rapl"

    def joules(self) -> float:
        return time.monotonic()


def spent() -> Spent:
    made = Spent(Clock())
    made._moments, made._joules = [0.0, 50.0, 100.0], [0.0, 50.0, 200.0]
    return made


WORTH = Worth(
    {(30, REFERENCE): {"a": 90.0}, (24, REFERENCE): {"a": 100.0}, (30, INT8): {"a": 90.0}},
    {"a": 120.0},
    0.5,
    30,
)


def test_throughput_is_of_the_bursts_and_waits_are_of_all() -> None:
    calm = answered("prose", False, stream(0, 1, 2), stream(3, 4, 5))
    burst = answered(
        "prose", True, stream(10, 11, 15), stream(10, 12, 20), stream(10, math.inf, 11, error="x")
    )
    found = figures.figures(Run("an-arm", [*calm, *burst], spent(), 30.0), WORTH, Slo(1.5, 0.2))
    assert found.whole["tokens-per-second"] == pytest.approx(20 / 10)
    assert found.whole["response-mean"] == pytest.approx((2 + 2 + 5 + 10) / 4 * 1000)
    assert found.whole["response-p50"] == pytest.approx(2000)
    assert found.whole["response-p99"] == pytest.approx(10000)
    assert found.whole["ttft-p99"] == pytest.approx(2000)
    assert found.whole["itl-p50"] == pytest.approx(1000 / 9)
    assert found.whole["batch"] == 2
    assert found.failed == 1
    assert found.whole["slo-violations"] == pytest.approx(60)  # the three of the burst
    assert found.whole["joules-per-token"] == pytest.approx(20 / 40)
    assert found.kinds["prose"] == found.whole


def test_joules_between_two_moments_are_read_off_the_line() -> None:
    assert spent().between(10, 20) == pytest.approx(10)
    assert spent().between(25, 75) == pytest.approx(25 + 75)
    assert spent().between(-5, 200) == pytest.approx(200)


def test_what_children_compute_is_counted_while_they_run_and_after() -> None:
    before = cpu_seconds_of_children()
    code = "import time\nwhile time.process_time() < .3: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        running = cpu_seconds_of_children() - before
        child.stdin.write(b"\n")
    assert running >= 0.25
    assert cpu_seconds_of_children() - before >= running


def span(from_token: int, depth: int, **precision: str) -> dict[str, Any]:
    known = {"candidate": "c", "modelUri": "u", "revision": "", "backbone": "b", "exits": ""}
    return {"fromToken": from_token, "depth": depth, **known, **precision}


@pytest.mark.parametrize(
    ("spans", "single_tokens", "percent"),
    [
        ((), False, 100.0),
        ((span(0, 24),), False, 90.0),
        ((span(0, 30, weightDtype="int8"),), False, 100.0),
        ((span(0, 24), span(5, 30)), False, 100 * 90 / 95),
        ((span(0, 30, exitMode="token"), span(1, 24, exitMode="token")), True, 75.0),
    ],
)
def test_quality_is_of_the_depth_and_precision_that_the_spans_name(
    spans: tuple[dict[str, Any], ...], single_tokens: bool, percent: float
) -> None:
    two = answered("prose", True, *[stream(0, 1, 2, spans=spans)] * 2)
    assert WORTH.percent(two, single_tokens=single_tokens)[0] == pytest.approx(percent, abs=1e-3)


# -- comparing -----------------------------------------------------------------------------------------------


def arm(rate: float, response: float, quality: float, joules: float = 1.0, batch: float = 4) -> Figures:
    metrics = {
        "tokens-per-second": rate, "response-mean": response, "quality": quality,
        "joules-per-token": joules, "batch": batch,
    }  # fmt: skip
    kinds = {"prose": metrics, "code": metrics | {"tokens-per-second": rate / 2, "quality": quality - 4}}
    return Figures(metrics, kinds, (quality, quality - 1, quality + 1), 0)


STATICS = {"30": arm(100, 900, 100), "27": arm(120, 800, 98), "24": arm(150, 700, 91)}


def test_the_best_choice_in_hindsight_keeps_the_quality_and_is_best_at_its_objective() -> None:
    assert compare.best(STATICS, "throughput", 87) == "24"
    assert compare.best(STATICS, "latency", 90) == "27"  # 24 layers miss it on code
    assert compare.best(STATICS, "quality", 90) == "30"
    assert compare.best(STATICS, "energy", 101) is None


def test_the_ideal_knows_the_best_choice_of_each_kind() -> None:
    assert compare.ideal(STATICS, 90) == pytest.approx(2 / (1 / 150 + 1 / 60))
    assert compare.ideal(STATICS, 101) is None


def test_ratios_are_above_one_where_the_loop_did_better() -> None:
    loops = {
        "throughput": arm(140, 750, 92, batch=16),
        "latency": arm(140, 350, 92),
        "energy": arm(1, 1, 1, 0.5),
    }
    tokens = {TOKENS: arm(70, 1400, 90, joules=2.0)}
    found = {c.id: c for c in compare.claims(loops, STATICS, tokens, STATICS["30"], 90, "shifting-free")}
    assert found["throughput-over-best-static-shifting-free"].value == pytest.approx(140 / 120, abs=1e-4)
    assert found["latency-over-best-static-shifting-free"].value == pytest.approx(800 / 350, abs=1e-4)
    assert found["throughput-over-full-depth-shifting-free"].value == 1.4
    assert found["throughput-over-token-exit-shifting-free"].value == 2
    assert found["response-time-over-token-exit-shifting-free"].value == 4
    assert found["energy-over-token-exit-shifting-free"].value == 4
    assert found["batch-over-token-exit-shifting-free"].value == 4
    assert found["ideal-throughput-over-best-static-shifting-free"].value == pytest.approx(
        2 / (1 / 150 + 1 / 60) / 80, abs=1e-4
    )
    assert found["throughput-over-ideal-shifting-free"].value == pytest.approx(
        140 / (2 / (1 / 150 + 1 / 60)), abs=1e-4
    )


def test_what_rests_on_declared_watts_is_named_so_and_reaches_no_bound() -> None:
    for name in ("30-auto-auto-joules-per-token", "energy-over-best-static-steady-free"):
        assert "declared-" in figures.as_declared(Claim(name, 1, 1, 1, "x")).id
    other = Claim("batch-over-token-exit-steady-free", 1, 1, 1, "x")
    assert figures.as_declared(other) == other


def test_parts_are_ratios_of_neighbours_burst_by_burst() -> None:
    rates = {parts.TORCH: [100.0, 100.0], parts.HEADS: [80.0, 90.0], parts.EXITS: [100.0, 90.0],
             parts.KERNELS: [300.0, 310.0], parts.ROWS: [600.0, 620.0]}  # fmt: skip
    found = {each.id: each for each in parts.claims(rates)}
    assert (found["part-heads-cost"].low, found["part-heads-cost"].high) == (0.8, 0.9)
    assert found["part-exits"].high == 1.25
    assert found["part-batch"].value == 2


# -- the loop ------------------------------------------------------------------------------------------------


def test_a_change_costs_its_seconds_and_the_requests_that_waited_meanwhile() -> None:
    now, ended = time.monotonic(), datetime.now(UTC)
    made = HistoryEntry(
        ended,
        Decision.SHRINK,
        Served("model", 1, 24, 8, ""),
        None,
        "",
        "24 layers are faster",
        "Promoted",
        seconds=4,
    )
    waits = answered(
        "prose",
        False,
        stream(now - 3, now - 1, now),
        stream(now - 9, now - 8, now),
        stream(now + 1, now + 2, now + 3),
    )
    [told] = costs([made], waits)
    assert told["requestsThatWaited"] == 1
    assert (told["kind"], told["layers"], told["seconds"]) == ("Shrink", 24, 4)


def test_rounds_are_taken_together_and_compared_in_pairs() -> None:
    """The machine is faster in one than in the other; that must not look like a difference of arms."""
    metrics = {name: 1.0 for name in figures.UNITS}

    def arm(*rates: float) -> Figures:
        rounds = [{**metrics, "tokens-per-second": rate} for rate in rates]
        return Figures.together([Figures(one, {"prose": one}, (95.0, 94.0, 96.0), 1) for one in rounds])

    slow, fast = arm(100.0, 200.0), arm(110.0, 180.0)
    assert slow.range("tokens-per-second") == (150.0, 100.0, 200.0)
    assert slow.failed == 2
    found = compare.ratio("mine-over-theirs", fast, slow, "tokens-per-second")
    assert (found.value, found.low, found.high) == (round(145 / 150, 4), 0.9, 1.1)


def test_of_turns_the_best_choice_is_the_one_beside_which_the_loop_did_worst() -> None:
    """Among those that kept the quality; slow turns weigh as much as fast ones."""
    full, best, poor = (
        [
            (arm(rate, 1, 95), arm(rate / share, 1, quality))
            for rate, share in zip((50, 200), shares, strict=True)
        ]
        for shares, quality in (((1.3, 1.2), 100), ((0.8, 1.25), 95), ((0.5, 0.5), 80))
    )
    turns = {"30": full, "24": best, "12": poor}
    found = {c.id: c for c in compare.in_turns("throughput", turns, "30", 90, "steady-free")}
    beside = found["throughput-over-best-static-steady-free"]
    assert beside.value == pytest.approx(1.0)
    assert beside.low < 0.7 < 1.4 < beside.high
    assert found["throughput-over-full-depth-steady-free"].value == pytest.approx(
        (1.3 * 1.2) ** 0.5, abs=1e-4
    )
    assert compare.ratios(best, "tokens-per-second") == pytest.approx([0.8, 1.25])


def test_turns_of_several_kinds_are_compared_with_the_best_choice_of_each() -> None:
    """A loop that is a tenth slower than the best of each kind may be faster than the best of all kinds."""

    def pair(kind: str, loop: float, its: float, quality: float = 95) -> tuple[Figures, Figures]:
        mine, other = arm(loop, 1, 95), arm(its, 1, quality)
        return replace(mine, kinds={kind: mine.whole}), replace(other, kinds={kind: other.whole})

    turns = {
        "30": [pair("prose", 90, 60), pair("code", 90, 60)],
        "27": [pair("prose", 90, 80), pair("code", 90, 100)],
        "24": [pair("prose", 90, 100), pair("code", 90, 120, quality=80)],
    }
    found = {c.id: c for c in compare.in_turns("throughput", turns, "30", 90, "shifting-free")}
    assert found["throughput-over-ideal-shifting-free"].value == pytest.approx(0.9)
    best = found["throughput-over-best-static-shifting-free"].value
    assert best == pytest.approx((90 / 80 * 90 / 100) ** 0.5, abs=1e-4)
    assert found["ideal-throughput-over-best-static-shifting-free"].value == pytest.approx(
        best / 0.9, abs=1e-4
    )
    steady = {name: pairs[:1] for name, pairs in turns.items()}
    assert not any("ideal" in c.id for c in compare.in_turns("throughput", steady, "30", 90, "steady-free"))


def test_slices_shift_as_the_traffic_does() -> None:
    slices = sliced(shape(10, ["prose", "code"]), 2)
    assert [one.kinds for one in slices] == [("prose",), ("prose",), ("code",), ("code",)]
    assert len({one.seed for one in slices}) == 4
    assert {one.requests for one in slices} == {10}


async def test_another_arm_is_first_in_each_slice() -> None:
    """What the loop does right after a shift would otherwise always fall on the same one."""
    asked = list[str]()

    def named(name: str) -> Arm:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Open]:
            async def ask(_: Arrival) -> Stream:
                asked.append(name)
                now = time.monotonic()
                return Stream("prose", "", "", (1,), (), now, now, now)

            yield Open(ask, lambda _: {})

        return Arm(name, opened)

    slices = [drawn(one, TEXTS) for one in sliced(shape(1, ["prose"], calm=1000.0), 3)]
    pairs = await Pairing(1, 10.0, lambda _: None).play(named("loop"), [named("a"), named("b")], slices)
    assert [pair.other.arm for pair in pairs] == ["a", "b", "b", "a", "a", "b"]
    assert [name == "loop" for name in asked] == [True, False] * 2 + [False, True] * 2 + [True, False] * 2


async def test_a_loops_processes_stand_still_in_anothers_turn() -> None:
    """Those that it starts meanwhile, too; and go on after it."""
    with ExitStack() as stack:
        apart, own = (stack.enter_context(_sleeping()) for _ in range(2))
        async with turns.stopped(frozenset([apart])):
            started = stack.enter_context(_sleeping())
            await asyncio.sleep(3 * turns.LOOK_SECONDS)
            assert [each.status() for each in (apart, own, started)] == ["sleeping", "stopped", "stopped"]
        assert "stopped" not in {each.status() for each in (apart, own, started)}


@contextmanager
def _sleeping() -> Iterator[psutil.Process]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


@pytest.mark.parametrize("exits", ["", "builtin://general"])
def test_the_loop_is_asked_by_a_spec_that_is_one(exits: str) -> None:
    asked = Asked("latency", ("auto", "int8"), 900, 90, ["a text"], 8, 20, 50)
    subject = Subject("file:///models/chat", exits, (30, 24), (REFERENCE, INT8), 72, 24)
    spec = parse.deployment(validation.admit(asked.deployment(subject))).spec
    assert spec.slo.optimization_type == "latency"
    assert spec.candidates[0].uri == subject.uri
    assert spec.limits.memory_mib == 900
    free = parse.deployment(validation.admit(replace(asked, memory_mib=0).deployment(subject))).spec
    assert free.limits.memory_mib is None


# -- through real pods ---------------------------------------------------------------------------------------


def options(**changes: Any) -> Namespace:
    settings = {
        "min_quality": 1, "callers": 8, "load": 1.0, "seed": 1, "slo_ttft": 1.0, "slo_itl": 0.1,
        "audit_percent": 20, "every_requests": 50, "watts": 10.0, "objectives": ["throughput"],
        "only": ["*"], "began": 0.0, "minutes": 1.0, "rounds": 1, "turns": 0,
    }  # fmt: skip
    return Namespace(**settings | changes)


def arms_of(tiny: Path) -> Arms:
    subject = Subject(f"file://{tiny}", "", (LAYERS, *EXITS[::-1]), (REFERENCE,), 12, 6, "float64")
    fixed = Fixed(subject, 0, NEVER, "float64")
    return Arms(fixed, Asked("", ("auto",), 0, 1, [], 8, 20, 50), ["throughput"], tiny, 10.0, 8, [])


async def test_a_trace_replayed_on_two_arms_becomes_figures_and_claims(tiny: Path) -> None:
    subject = Subject(f"file://{tiny}", "", (LAYERS, *EXITS[::-1]), (REFERENCE,), 12, 6, "float64")
    worth = measured(subject, TEXTS, None, 100.0)
    assert set(worth.depths) == {(depth, REFERENCE) for depth in (LAYERS, *EXITS)}
    fixed = Fixed(subject, 0, worth.threshold, "float64")
    trace = drawn(shape(12, ["prose", "code"], calm=100.0), TEXTS)
    found = Measured()
    tokens = {"exit_mode": "token", "exit_threshold": worth.threshold, "max_batch_size": 4}
    for name, limits, engine in (
        (fixed.names[0], {}, {}),
        (TOKENS, tokens, {"prefix_caching": False}),
    ):
        async with (
            serving(tiny, engine=engine, **limits) as pod,
            asking(f"127.0.0.1:{pod.ports.port}", 6) as ask,
        ):
            began = time.monotonic()
            replayed = await replay(trace, ask, 8, lambda _: None)
            lasted = time.monotonic() - began
        readings = Spent(Clock())
        readings.look()
        readings._moments.insert(0, began), readings._joules.insert(0, began)
        found.runs.append(Run(name, replayed, readings, lasted, {}, name == TOKENS))
    result = Result(arms_of(tiny), shape(12, ["prose", "code"]), found, worth, options())
    claims = {each.id: each for each in result.claims()}
    for name in (fixed.names[0], TOKENS):
        assert claims[f"{name}-failed"].value == 0
        assert claims[f"{name}-tokens-per-second"].value > 0
        assert 1 <= claims[f"{name}-batch"].value <= 8
    assert claims[f"{fixed.names[0]}-quality"].value == 100
    told = json.loads(json.dumps(result.figures()))
    assert told["setting"] == "shifting-free"
    assert told["bestStatic"] == {"throughput": fixed.names[0]}
    table = "\n".join(page.arms({"figures": told, "claims": [vars(each) for each in claims.values()]}))
    assert f"| {TOKENS} | " in table
    assert "12 requests of" in table


@pytest.mark.parametrize(
    ("only", "asked"),
    [
        (["*"], ["30-auto-auto", TOKENS, "helios-energy", "parts"]),
        (["helios-*", "parts"], ["helios-energy", "parts"]),
        ([TOKENS], [TOKENS]),
    ],
)
def test_arms_are_asked_for_by_name_or_pattern(tiny: Path, only: list[str], asked: list[str]) -> None:
    bench = Bench(arms_of(tiny), TEXTS, options(only=only))
    names = ["30-auto-auto", TOKENS, "helios-energy", "parts"]
    assert [name for name in names if bench.is_asked(name)] == asked


def test_a_name_that_no_arm_has_is_told_with_those_there_are() -> None:
    command = [sys.executable, "-m", "bench.loop", "--busy", "--only", "helios-*", "half-depth"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "--only: no arm is named half-depth; there are 30-auto-auto, " in ran.stderr


# -- long ----------------------------------------------------------------------------------------------------

pytest_long = pytest.mark.skipif(not LONG, reason="`make test-long` runs it: other processes, minutes")


@pytest.mark.long
@pytest_long
async def test_transformers_answers_as_an_arm(tiny: Path) -> None:
    trace = [replace(each, at=0.0) for each in drawn(shape(6), TEXTS)]
    async with answering(tiny, "float32", 4, 64, 5) as peer:
        replayed = await replay(trace, peer.ask, 6, lambda _: None)
    assert "batch" in peer.batching
    assert {(len(each.stream.output_ids), each.stream.error) for each in replayed} == {(5, "")}
    assert all(each.stream.sent < each.stream.began <= each.stream.ended for each in replayed)


@pytest.mark.long
@pytest_long
def test_the_short_run_has_every_kind_of_arm() -> None:
    command = [sys.executable, "-m", "bench.loop", "--short", "--busy", "--output", "json"]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    told: Mapping[str, Any] = json.loads(ran.stdout)
    known = {*told["figures"]["arms"], *told["figures"]["leftOut"]}
    assert {"30-auto-auto", TOKENS, "helios-throughput", "transformers"} <= known
    assert told["figures"]["errors"] == {}
    assert all(each["value"] == 0 for each in told["claims"] if each["id"].endswith("-failed"))
