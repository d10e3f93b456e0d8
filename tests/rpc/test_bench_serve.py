"""`bench.serve`: what it counts, through real doors of a real pod."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helios_server.telemetry.metrics import Metrics as PodMetrics

from bench.report import percentile
from bench.serve import figures
from bench.serve.doors import DOORS, Access, Door, Failed, Refused
from bench.serve.figures import Slo
from bench.serve.load import ANSWERED, FAILED, REFUSED, TOLD_WHEN, Call, Caller
from bench.serve.pod import Metrics, quantile
from tests.rpc.pods import Served, eventually, serving
from tests.sizes import LONG


def door(pod: Served, name: str, model: str = "chat") -> Door:
    kind = DOORS[name]
    return kind(kind.at(getattr(pod.ports, kind.PORT)), model, Access())


async def counts(opened: Door, new: int) -> list[int]:
    return [count async for count in opened.ask((5, 6, 7), new)]


# -- doors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOORS)
async def test_each_token_is_counted_once(pod: Served, name: str) -> None:
    async with door(pod, name) as opened:
        assert sum(await counts(opened, 9)) == 9
        assert sum(await counts(opened, 1)) == 1


@pytest.mark.parametrize("name", DOORS)
async def test_who_is_turned_away_by_a_full_queue_is_told_when_to_come_back(tiny: Path, name: str) -> None:
    async with serving(tiny, max_batch_size=1, max_queue_size=1) as pod, door(pod, name) as opened:
        caller = Caller(opened, prompt=3, new=300)
        await caller.burst(6)
    ends = [call.end for call in caller.calls]
    assert set(ends) == {ANSWERED, TOLD_WHEN}
    assert all(call.hint and call.hint >= 1 for call in caller.calls if call.end == TOLD_WHEN)


@pytest.mark.parametrize("name", DOORS)
async def test_what_is_wrong_is_no_refusal(pod: Served, name: str) -> None:
    async with door(pod, name, model="another") as opened:
        with pytest.raises(Failed, match="another is not served here"):
            await counts(opened, 2)


@pytest.mark.parametrize("name", DOORS)
async def test_where_nobody_serves_the_call_has_an_end(name: str) -> None:
    kind = DOORS[name]
    async with kind(kind.at(1), "", Access()) as opened:
        with pytest.raises((Failed, Refused)):
            await counts(opened, 2)


@pytest.mark.parametrize("name", DOORS)
async def test_a_stream_that_is_ended_by_a_farewell_is_refused(tiny: Path, name: str) -> None:
    async with serving(tiny) as pod, door(pod, name) as opened:
        assert pod.server is not None
        caller = Caller(opened, prompt=3, new=3500)
        asked = asyncio.create_task(caller.one())
        await eventually(lambda: _has_begun(caller))
        await pod.server.close()
        call = await asked
    assert call.end in (TOLD_WHEN, REFUSED), call.words
    assert "Send the request to another server" in call.words


async def _has_begun(caller: Caller) -> bool:
    return bool(caller.calls and caller.calls[0].came)


# -- loops ---------------------------------------------------------------------------------------------------


async def test_a_closed_loop_keeps_as_many_under_way_and_an_open_one_whatever_comes(tiny: Path) -> None:
    async with serving(tiny, max_queue_size=200) as pod, door(pod, "grpc") as opened:
        closed, open_loop = Caller(opened, 3, 4), Caller(opened, 3, 4, seed=1)
        await closed.closed(3, 0.2)
        await open_loop.opened(200.0, 0.2)
    for caller in (closed, open_loop):
        assert {call.end for call in caller.calls} == {ANSWERED}
    starts = sorted(call.sent for call in closed.calls)
    ends = sorted(call.came[-1] for call in closed.calls)
    assert all(begun >= ended for begun, ended in zip(starts[3:], ends, strict=False))  # a fourth never runs


# -- figures -------------------------------------------------------------------------------------------------


def answered(sent: float, *came: float) -> Call:
    return Call(sent, list(came), [1] * len(came), ANSWERED)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 90, 99)] == [50, 90, 99]
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0], 50) == 1
    assert percentile([], 50) == 0


def test_what_comes_after_the_round_counts_in_no_rate() -> None:
    calls = [answered(0.0, 0.5, 1.0, 1.5), answered(1.0, 1.5, 2.5), Call(1.0, end=TOLD_WHEN, hint=1)]
    found = figures.summary(calls, begin=0.0, seconds=2.0, slo=Slo(ttft=1.0, itl=2.0))
    assert found["tokens-per-second"] == 2.0
    assert found["goodput"] == 0.5
    assert (found["sent"], found[ANSWERED], found[TOLD_WHEN], found[FAILED]) == (3, 2, 1, 0)
    assert found["ttft-p50"] == 500
    assert found["itl-p99"] == 1000
    assert found["e2e-p50"] == 1500


@pytest.mark.parametrize(
    ("call", "good"),
    [
        (answered(0.0, 0.5, 0.6, 0.7), True),
        (answered(0.0, 0.6, 0.7), False),  # its first token is late
        (answered(0.0, 0.5, 0.7), False),  # those after it are
        (answered(0.0, 0.5), True),
        (Call(0.0, [0.1], [1], FAILED), False),
    ],
)
def test_goodput_is_of_calls_that_were_fast_enough(call: Call, good: bool) -> None:
    assert Slo(ttft=0.55, itl=0.15).met_by(call) is good


def test_a_message_of_many_tokens_is_as_many_between_which_time_is_shared() -> None:
    assert Call(0.0, [1.0, 2.0], [1, 4], ANSWERED).itl == 0.25


def test_a_claim_is_the_median_of_the_rounds_and_refusals_are_all() -> None:
    rounds = [figures.summary([answered(0.0, at)], 0.0, 2.0, Slo(1, 1)) for at in (0.2, 0.1, 0.4)]
    rounds[1][FAILED] = 2
    claims = {claim.id: claim for claim in figures.claims("closed-grpc", rounds)}
    first = claims["closed-grpc-ttft-p50"]
    assert (first.value, first.low, first.high, first.unit) == (200, 100, 400, "ms")
    assert claims["closed-grpc-failed"].value == 2
    assert "closed-grpc-sent" not in claims


def test_lag_is_read_between_two_pictures_of_the_pods_own_histogram() -> None:
    def page(metrics: PodMetrics) -> dict[float, float]:
        return Metrics(metrics.render().decode()).buckets("helios_event_loop_lag_seconds")

    pod = PodMetrics("chat")
    pod.loop_lag(2.0)
    before = page(pod)
    for _ in range(99):
        pod.loop_lag(0.0005)
    pod.loop_lag(0.06)
    after = page(pod)
    assert quantile(before, after, 0.5) <= 0.001
    assert quantile(before, after, 0.99) <= 0.001
    assert 0.05 < quantile(before, after, 1.0) <= 0.075
    assert quantile(before, before, 0.99) == 0


# -- the whole -----------------------------------------------------------------------------------------------


LONG_ONLY = pytest.mark.skipif(not LONG, reason="`make test-long` runs it: the real model takes minutes")


@pytest.mark.long
@pytest.mark.parametrize(
    "what", [("--tiny",), ("--crowd", "--tiny"), pytest.param(("--crowd",), marks=LONG_ONLY)], ids=" ".join
)
def test_it_runs_and_tells_its_claims(what: tuple[str, ...], tmp_path: Path) -> None:
    drawn = () if "--crowd" in what else ("--plot", str(tmp_path / "plot.svg"))
    command = [sys.executable, "-m", "bench.serve", *what, *drawn, "--short", "--output", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    claims = {claim["id"]: claim for claim in json.loads(ended.stdout)["claims"]}
    wanted = "closed-{}-ttft-p99" if drawn else "cpu-tiny-{}-beyond-engine"
    assert all(claims[wanted.format(name)]["value"] > 0 for name in DOORS)
    assert not any(claim["value"] for name, claim in claims.items() if name.endswith("-failed"))
    assert not drawn or "<svg" in (tmp_path / "plot.svg").read_text()
