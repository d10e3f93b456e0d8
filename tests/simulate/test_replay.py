"""Traffic through the loop: equal arguments give equal runs, recorded ones the same changes, and each pass is
what `decide` makes of its snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest
from helios_cli.trace_texts import kinds_of, texts_of
from helios_contract.limits import Limits
from helios_contract.request_log import AuditLine, Line, RequestLine, to_json
from helios_operator.decide import decide
from helios_operator.decide.plan import Plan
from helios_operator.decide.policy import Policy
from helios_operator.decide.snapshot import Snapshot
from helios_operator.simulate import ablations, traffic
from helios_operator.simulate.hindsight import compare
from helios_operator.simulate.replay import Clocks, Outcome, Replay
from helios_operator.simulate.serving import ServingPod
from helios_operator.simulate.traffic import Drift, Request

from tests.decide.documented import check_words
from tests.simulate import made
from tests.sizes import LONG

DRIFT = Drift(requests=900, rate=4, shift=110, seed=1, isl=64, osl=48)


def requests(drift: Drift = DRIFT) -> Iterator[Request]:
    return traffic.generated(drift, kinds_of(made.found()))


Pass = tuple[Snapshot, datetime, Plan]


@pytest.fixture(scope="module")
def live() -> tuple[Outcome, Logging, list[Pass]]:
    """A run with all that it said: what stands for the loop that was recorded."""
    world = Logging.of(made.spec(), made.found(), made.CLOCKS)
    passes: list[Pass] = []
    world.watch.append(lambda _, snapshot, plan: passes.append((snapshot, world.now, plan)))
    return world.serve_all(requests()), world, passes


class Logging(Replay):
    """Writes the request log that its pods would have written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.log: list[str] = []
        self.pod = LoggingPod


class LoggingPod(ServingPod):
    def _ended(self, request: Request, first: float, end: float) -> None:
        before = self.audits[-1:]
        limits = self.limits
        super()._ended(request, first, end)
        line = request_line(request, limits, end, self.boot_id, self.requests)
        written: list[Line] = [line]
        if self.audits[-1:] != before:
            written.append(AuditLine.of(self.boot_id, self.audits[-1]))
        world = self.world
        assert isinstance(world, Logging)
        world.log += [to_json(each) for each in written]


def request_line(request: Request, limits: Limits, end: float, boot: str, ordinal: int) -> RequestLine:
    return RequestLine(
        arrived=made.BEGAN.timestamp() + request.arrived,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        boot_id=boot,
        request=ordinal,
        candidate=limits.candidate,
        layer_budget=limits.layer_budget,
        exits_digest=limits.exits_digest,
        seconds=end - request.arrived,
    )


def test_it_follows_the_traffic_and_says_why(live: tuple[Outcome, Logging, list[object]]) -> None:
    outcome = live[0]
    assert outcome.figures.answered == outcome.figures.requests == DRIFT.requests
    assert [change.kind for change in outcome.changes][:1] == ["Select"]
    assert len(outcome.changes) > 2
    assert any(d.reason == "QualityRestored" and "quality" in d.message for d in outcome.decisions)
    assert [d.at for d in outcome.decisions] == sorted(d.at for d in outcome.decisions)


def test_recorded_snapshots_give_the_same_plans(
    live: tuple[Outcome, Logging, list[Pass]],
) -> None:
    for number, (snapshot, now, plan) in enumerate(live[2]):
        check_words(plan)
        if number % 5 == 0 or plan.actions:
            assert decide(snapshot, now) == plan


def test_a_recorded_trace_makes_the_same_changes(
    live: tuple[Outcome, Logging, list[object]], tmp_path
) -> None:  # type: ignore[no-untyped-def]
    outcome, world, _ = live
    (tmp_path / "requests.jsonl").write_text("\n".join(world.log) + "\n")
    recorded = traffic.read(tmp_path / "requests.jsonl")
    assert len(recorded.lines) == DRIFT.requests
    assert len(recorded.audits) > 100
    found = made.found()
    again = Replay.of(made.spec(), found, made.CLOCKS).serve_all(
        traffic.replayed(recorded, texts_of(recorded, found))
    )
    assert [(c.kind, c.to, c.reason) for c in again.changes] == [
        (c.kind, c.to, c.reason) for c in outcome.changes
    ]
    for seen, told in zip(again.changes, outcome.changes, strict=True):
        assert abs(seen.at - told.at) <= 15  # an audit speaks for the requests around it


def test_a_night_without_requests_takes_no_passes() -> None:
    first = list(requests(replace(DRIFT, requests=80)))
    night = 12 * 3600.0
    later = [replace(each, number=80 + n, arrived=each.arrived + night) for n, each in enumerate(first)]
    world = Replay.of(made.spec(), made.found(), made.CLOCKS)
    passes: list[float] = []
    world.watch.append(lambda *_: passes.append(world.clock))
    outcome = world.serve_all([*first, *later])
    assert outcome.figures.answered == 160
    assert len(passes) < 300
    assert any(abs(d.at - 6 * 3600) < 600 and "interval" in d.message for d in outcome.decisions)


def test_equal_arguments_equal_runs() -> None:
    drift = replace(DRIFT, requests=80)
    one, other = (Replay.of(made.spec(), made.found(), made.CLOCKS).serve_all(requests(drift)) for _ in "ab")
    assert one == other


def test_nothing_serves_before_a_pod_is_ready_and_nothing_is_lost() -> None:
    slow = Clocks(made.BEGAN, pod=200.0)
    outcome = Replay.of(made.spec(), made.found(), slow).serve_all(requests(replace(DRIFT, requests=100)))
    assert outcome.figures.answered + outcome.figures.refused == 100
    assert outcome.figures.ttft_ms["p50"] > 50_000


def test_hindsight_serves_the_same_requests(live: tuple[Outcome, Logging, list[object]]) -> None:
    outcome, world, _ = live
    seen = compare(world, requests)
    assert {each.option for each in seen.statics} >= {"general at 24", "general at 30", "code at 24"}
    assert all(each.figures.requests == DRIFT.requests for each in seen.statics)
    full = next(each for each in seen.statics if each.option == "general at 30")
    assert full.figures.quality_percent == 100
    assert seen.best
    assert seen.best.met
    assert all(
        each.figures.tokens_per_second <= seen.best.figures.tokens_per_second
        for each in seen.statics
        if each.met
    )
    assert seen.regret(outcome) is not None


def test_without_audits_a_shift_goes_unnoticed() -> None:
    found = {v.name: v for v in ablations.variants(made.spec(), ["mechanisms"])}
    outcome = Replay.of(found["no audit"].spec, made.found(), made.CLOCKS).serve_all(requests())
    assert not any(d.reason == "AuditAlarm" for d in outcome.decisions)
    assert outcome.figures.quality_violations > 0


def test_every_constant_is_turned_both_ways() -> None:
    turned = ablations.variants(made.spec(), ["policy"])
    changed = {
        name
        for variant in turned
        for name in vars(variant.policy)
        if getattr(variant.policy, name) != getattr(Policy(), name)
    }
    assert changed == set(vars(Policy()))
    assert all(0 < v.policy.confidence < 1 for v in turned)


def test_the_breach_counter_alone_calls_a_shift_too() -> None:
    found = {v.name: v for v in ablations.variants(made.spec(), ["mechanisms"])}
    drift = replace(DRIFT, requests=600)
    world = Replay.of(found["breach counter only"].spec, made.found(), made.CLOCKS)
    outcome = world.serve_all(requests(drift))
    assert any(d.reason == "BreachAlarm" for d in outcome.decisions)
    assert not any(d.reason == "AuditAlarm" for d in outcome.decisions)


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: a thousand replicas serve 200,000 requests")
def test_a_thousand_replicas() -> None:
    drift = replace(DRIFT, requests=200_000, rate=3500, shift=20)
    spec = replace(made.spec(), replicas=1000)
    outcome = Replay.of(spec, made.found(), made.CLOCKS).serve_all(requests(drift))
    assert outcome.figures.answered == drift.requests
    assert len(outcome.changes) > 1
