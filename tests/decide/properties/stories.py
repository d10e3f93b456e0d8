"""Random stories: a deployment, and what happens to it. Hypothesis writes them, and shortens those that break
a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from helios_operator.api.annotations import REASSESS, SWITCH_TO, reassess_value, switch_value
from helios_operator.api.types import (
    Bounds,
    Candidate,
    MaintenanceWindow,
    Selection,
    SelectionPolicy,
    Strategy,
)
from helios_operator.decide.snapshot import JobKind
from hypothesis import strategies as st

from tests.decide.builders import LIVE, inline, spec
from tests.decide.properties.rules.rule import Rule
from tests.decide.truth import BARE_BIG, BARE_SMALL, CODE, FRAIL, GENERAL, NOISE, PROSE, Model, candidate
from tests.decide.world import World

POOL: dict[str, Model] = {
    "general": GENERAL,
    "prose": PROSE,
    "code": CODE,
    "noise": NOISE,
    "small": BARE_SMALL,
    "bare": BARE_BIG,
    "frail": FRAIL,
}
Event = tuple[str, object]


@dataclass(frozen=True)
class Story:
    """`room`: how many pods the machine's memory holds."""

    names: tuple[str, ...]
    live: bool
    min_quality: int
    strategy: Strategy
    room: float
    wins: int
    cooldown_seconds: int
    events: tuple[Event, ...]
    min_improvement: int = 10
    bounds: tuple[int | None, int | None] = (None, None)
    held: str = ""
    """By the user from the first selection on: paused, suspended, advisory, window."""
    delay_seconds: int = 1
    stream_seconds: float = 3.0
    weights: str = "auto"
    """What may be weighed of every candidate, separated by spaces; "": the operator's default."""
    keys: str = "auto"


domains = st.sampled_from(["prose", "code", "german"])
events: st.SearchStrategy[Event] = st.one_of(
    st.tuples(st.just("serve"), domains),
    st.tuples(st.just("serve"), domains),
    st.tuples(st.just("wait"), st.integers(1, 40)),
    st.tuples(st.just("quality"), st.sampled_from([60, 85, 90, 96, 99])),
    st.tuples(st.just("itl"), st.sampled_from([None, 1, 60])),
    st.tuples(st.just("drop"), st.integers(0, 2)),
    st.tuples(st.just("add"), st.sampled_from(sorted(POOL))),
    st.tuples(st.just("refuse"), st.booleans()),
    st.tuples(st.just("start"), st.booleans()),
    st.tuples(st.just("jobs"), st.sampled_from([None, JobKind.QUALITY, JobKind.TIMING])),
    st.tuples(st.just("reassess"), st.none()),
    st.tuples(st.just("switch"), st.sampled_from(sorted(POOL))),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("memory"), st.sampled_from([0.9, 1.0, 1.3])),
    st.tuples(st.just("lose"), st.integers(1, 4)),
    st.tuples(st.just("replicas"), st.integers(1, 2)),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("misses"), st.sampled_from([0, 30, 100])),
)
stories = st.builds(
    Story,
    names=st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=3, unique=True).map(tuple),
    live=st.booleans(),
    min_quality=st.sampled_from([80, 85, 90]),
    min_improvement=st.sampled_from([0, 10, 60]),
    bounds=st.sampled_from([(None, None), (None, None), (25, None), (None, 28)]),
    held=st.sampled_from(["", "", "", "paused", "suspended", "advisory", "window"]),
    delay_seconds=st.sampled_from([0, 1, 5]),
    strategy=st.sampled_from(
        [Strategy.AUTO, Strategy.AUTO, Strategy.SURGE, Strategy.IN_PLACE, Strategy.RECREATE]
    ),
    room=st.sampled_from([1.2, 2.5, 10.0]),
    wins=st.integers(1, 3),
    cooldown_seconds=st.sampled_from([0, 10, 60]),
    weights=st.sampled_from(["auto", "auto", "", "int8 int4 auto"]),
    keys=st.sampled_from(["auto", "auto", "int8 auto"]),
    events=st.lists(events, min_size=1, max_size=7).map(tuple),
)


def begin(story: Story) -> World:
    base = spec(
        LIVE if story.live else inline(), story.min_quality, **{name: POOL[name] for name in story.names}
    )
    rules = replace(
        base.reassessment,
        consecutive_success_limit=story.wins,
        cooldown=timedelta(seconds=story.cooldown_seconds),
        every_requests=40,
        min_improvement_percent=story.min_improvement,
    )
    rollout = replace(base.rollout, strategy=story.strategy, scale_down_delay_seconds=story.delay_seconds)
    limits = replace(base.limits, layer_budget=Bounds(*story.bounds))
    held = tuple(_held(c, story.weights.split(), story.keys.split()) for c in base.candidates)
    wanted = replace(base, candidates=held, reassessment=rules, rollout=rollout, limits=limits)
    truth = {candidate_key(name): POOL[name] for name in POOL}
    memory = int((base.limits.memory_mib or 0) * story.room)
    return World(wanted, truth, memory_mib=memory, stream_seconds=story.stream_seconds)


def _held(each: Candidate, weights: Sequence[str], keys: Sequence[str]) -> Candidate:
    return replace(each, weight_dtypes=tuple(weights), kv_cache_dtypes=tuple(keys))


def candidate_key(name: str) -> tuple[str, str, str, tuple[int, ...]]:
    made = candidate(name, POOL[name])
    return (made.uri, made.revision or "", made.exits or "", made.exit_layers)


def tell(story: Story, rules: list[Rule], prepare: Callable[[World], None] = lambda made: None) -> World:
    """The story from its beginning, watched by the rules."""
    made = begin(story)
    prepare(made)
    made.watch += [rule.see for rule in rules]
    made.run(12)
    made.serve(40, "prose")
    made.run(6)
    hold(made, story.held)
    for name, value in story.events:
        happen(made, name, value)
        made.run(2)
    made.run(10)
    for rule in rules:
        rule.end(made)
    return made


def hold(made: World, how: str) -> None:
    match how:
        case "paused":
            made.edit(rollout=replace(made.spec.rollout, paused=True))
        case "suspended":
            made.edit(reassessment=replace(made.spec.reassessment, suspend=True))
        case "advisory":
            made.edit(selection=Selection(SelectionPolicy.ADVISORY))
        case "window":
            window = MaintenanceWindow("0 3 1 1 *", timedelta(hours=1))
            made.edit(reassessment=replace(made.spec.reassessment, maintenance_window=window))


def happen(made: World, name: str, value: object) -> None:
    match name, value:
        case "serve", str(domain):
            made.serve(60, domain)
        case "few", str(domain):
            made.serve(18, domain)
        case "wait", int(seconds):
            made.run(seconds, every=2)
        case "quality", int(percent):
            made.edit(slo=replace(made.spec.slo, min_quality_percent=percent))
        case "itl", limit:
            made.edit(slo=replace(made.spec.slo, itl_ms=limit))  # type: ignore[arg-type]
        case "drop", int(place):
            kept = [c for n, c in enumerate(made.spec.candidates) if n != place]
            made.edit(candidates=tuple(kept) or made.spec.candidates)
        case "add", str(who):
            if who not in {c.name for c in made.spec.candidates} and len(made.spec.candidates) < 3:
                like = made.spec.candidates[0]
                new = _held(candidate(who, POOL[who]), like.weight_dtypes, like.kv_cache_dtypes)
                made.edit(candidates=(*made.spec.candidates, new))
        case "refuse", bool(refuses):
            made.refuses = (lambda limits: "no memory for it") if refuses else (lambda limits: "")
        case "start", bool(starts):
            made.starts = (lambda limits: True) if starts else (lambda limits: limits.generation < 3)
        case "jobs", kind:
            made.fails = lambda job: "it failed" if job.kind is kind else ""
        case "reassess", _:
            made.annotate(REASSESS, reassess_value(made.now))
        case "switch", str(who):
            made.annotate(SWITCH_TO, switch_value(who, made.now))
        case "pause", bool(paused):
            made.edit(rollout=replace(made.spec.rollout, paused=paused))
        case "memory", float(factor):
            memory = int((made.spec.limits.memory_mib or 0) * factor)
            made.edit(limits=replace(made.spec.limits, memory_mib=memory))
        case "lose", int(passes):
            for _ in range(passes):
                made.apply(made.look(), write_status=False)
        case "replicas", int(replicas):
            made.edit(replicas=replicas)
        case "misses", int(percent):
            made.misses = lambda pod: made.random.random() * 100 < percent
        case "crash", _:
            for pod in [p for r in made.revisions.values() for p in r.pods if p.ready][:1]:
                pod.crash()
