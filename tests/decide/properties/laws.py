"""Each rule with a few stories that put it to the test: hypothesis adds more, mutations must break at least
one.

A law is what `test_laws` proves of the code and `tests.decide.mutations` proves of the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from helios_operator.api.types import Strategy

from tests.decide.properties.rules import calm, changing, choices, evidence, memory, precisions, serving
from tests.decide.properties.rules.rule import Rule
from tests.decide.properties.stories import POOL, Story, begin, tell
from tests.decide.world import World

Prepare = Callable[[World], None]


def as_it_is(made: World) -> None:
    """The code under test, unchanged."""


def story(*names: str, events: tuple[tuple[str, object], ...] = (), **changes: object) -> Story:
    plain = Story(
        names=names,
        live=True,
        min_quality=90,
        strategy=Strategy.AUTO,
        room=10.0,
        wins=2,
        cooldown_seconds=10,
        events=events,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


PROSE, CODE, GERMAN = ("serve", "prose"), ("serve", "code"), ("serve", "german")

GROWS = story("general", events=(PROSE, CODE, CODE))
SHRINKS = story("general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE))
SWITCHES = story("small", "bare", events=(PROSE, CODE, CODE, CODE), min_quality=85)
RETURNS = story("small", "bare", events=(PROSE, CODE, CODE, CODE, PROSE, PROSE, PROSE, PROSE), min_quality=85)
SLOW_START = replace(RETURNS, delay_seconds=5, stream_seconds=8.0)
CRAMPED = replace(RETURNS, room=1.2)
SWAPS = story("prose", "code", events=(PROSE, CODE, CODE))
IMPOSSIBLE = story("general", "small", events=(PROSE, ("itl", 1), PROSE, PROSE))
REFUSED = story("general", events=(PROSE, ("refuse", True), CODE, CODE, CODE, ("wait", 40), CODE, CODE))
BACK_AND_FORTH = story(
    "general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE, CODE, CODE), wins=1, cooldown_seconds=60
)
EAGER = story("general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE), wins=1, cooldown_seconds=0)
RELUCTANT = story(
    "general",
    "small",
    events=(PROSE, PROSE, CODE, CODE, CODE),
    wins=50,
    cooldown_seconds=36_000,
    min_improvement=1000,
)
MODEST = story("general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE, PROSE), min_improvement=80, wins=1)
PATIENT = story(
    "general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE, PROSE), cooldown_seconds=3600, wins=1
)
BOUNDED = story("general", events=(PROSE, CODE), bounds=(25, 28))
NOISE_ALONE = story("noise", events=(PROSE,), min_quality=80)
NOISY = story("noise", "general", events=(PROSE, CODE), min_quality=80)
ASKED = story("general", events=(PROSE, CODE, CODE, PROSE, PROSE, PROSE, ("reassess", None)), wins=4)
"""Asking again and again does not make new evidence."""
HASTY = story("general", events=(PROSE, ("few", "code"), ("few", "code"), ("quality", 96)))
"""What is asked right after a change is answered from the profiles."""
REQUANTIZES = story("frail", events=(PROSE, CODE, CODE, CODE), min_quality=96, weights="auto int4")
"""In four bits on prose, which code does not bear."""
HALVES = story("general", events=(PROSE, CODE, CODE, PROSE, PROSE), weights="", keys="")
STEADY = story(
    "frail",
    events=(CODE, CODE, CODE, CODE, CODE, CODE),
    weights="auto int4",
    min_quality=96,
    wins=1,
    cooldown_seconds=0,
)
"""What was measured on prose says little of four bits on code."""
DROPPED = story("small", "bare", events=(PROSE, ("drop", 0), PROSE), min_quality=85)
SHIFTY = story("small", "bare", events=(CODE, CODE, CODE), min_quality=85)
TWO, ONE, CRASH = ("replicas", 2), ("replicas", 1), ("crash", None)
SOMETIMES = ("misses", 30)
RARELY_SEEN = story(
    "general", events=(TWO, CODE, CODE, SOMETIMES, PROSE, PROSE, PROSE, PROSE), wins=3, cooldown_seconds=0
)
"""Two pods, of which some looks miss one or both."""
COMING_AND_GOING = story(
    "general", events=(TWO, PROSE, PROSE, CRASH, PROSE, ONE, PROSE, TWO, CRASH, PROSE, PROSE), wins=3
)


@dataclass(frozen=True)
class Law:
    """`watchers` complain when the rule is broken in a story."""

    name: str
    watchers: Callable[[], list[Rule]]
    witnesses: tuple[Story, ...]

    def check(self, told: Story, prepare: Prepare = as_it_is) -> None:
        tell(told, self.watchers(), prepare)


def held(how: str) -> tuple[Story, ...]:
    return (replace(GROWS, held=how), replace(SWITCHES, held=how))


LAWS = (
    Law(
        "serving is never taken away",
        lambda: [serving.ServingIsNeverTakenAway()],
        (RETURNS, DROPPED, CRAMPED),
    ),
    Law("no request is lost", lambda: [serving.NothingIsLost()], (RETURNS, GROWS)),
    Law(
        "an infeasible SLO takes nothing down",
        lambda: [serving.AnInfeasibleSloTakesNothingDown()],
        (IMPOSSIBLE,),
    ),
    Law("one change at a time", lambda: [changing.OneChangeAtATime()], (SLOW_START, RETURNS, REQUANTIZES)),
    Law("no flapping", lambda: [calm.NoFlapping()], (SHRINKS, ASKED, MODEST, PATIENT, HALVES)),
    Law(
        "a precision is not had again and again",
        lambda: [precisions.APrecisionIsNotHadAgainAndAgain()],
        (STEADY,),
    ),
    Law("auto alone is as it was", lambda: [precisions.AutoAloneIsAsItWas()], (GROWS, SWITCHES)),
    Law("back-off doubles", lambda: [calm.BackOffDoubles()], (REFUSED, BACK_AND_FORTH, RETURNS)),
    Law("cold samples are no evidence", lambda: [evidence.ColdSamplesAreNoEvidence()], (EAGER, GROWS, HASTY)),
    Law(
        "requests are counted once",
        lambda: [evidence.RequestsAreCountedOnce()],
        (RARELY_SEEN, COMING_AND_GOING, SHRINKS),
    ),
    Law(
        "repairs need only an alarm",
        lambda: [evidence.RepairsNeedOnlyAnAlarm()],
        (RELUCTANT, SHIFTY, REQUANTIZES),
    ),
    Law("limits restart no pod", lambda: [changing.LimitsRestartNoPod()], (GROWS, SWAPS, REQUANTIZES)),
    Law("memory is in the API", lambda: [memory.MemoryIsInTheApi(every=1)], (SHRINKS,)),
    Law("auto says which and why", lambda: [changing.AutoSaysWhichAndWhy()], (SWITCHES, CRAMPED)),
    Law("choices fit", lambda: [choices.ChoicesFit()], (BOUNDED, GROWS, HALVES)),
    Law("noise is never chosen", lambda: [choices.NoiseIsNeverChosen()], (NOISY, NOISE_ALONE)),
    Law(
        "what is held is held",
        lambda: [changing.WhatIsHeldIsHeld()],
        tuple(told for how in ("paused", "suspended", "advisory", "window") for told in held(how)),
    ),
    Law("the first choice is measured", lambda: [evidence.TheFirstChoiceIsMeasured()], (SWITCHES, SWAPS)),
    Law("old pods stay as long as asked", lambda: [serving.OldPodsStayAsLongAsAsked()], (SLOW_START,)),
    Law("it settles", lambda: [calm.ItSettles()], (GROWS, RETURNS, IMPOSSIBLE)),
)


def by_name(name: str) -> Law:
    return next(law for law in LAWS if law.name == name)


def names_do_not_matter(told: Story, prepare: Prepare = as_it_is) -> None:
    """The same candidates under other names, they and what they may be held in in another order: the same
    actions on the same models."""
    plain, renamed = begin(told), begin(told)
    turned = tuple(
        replace(
            c,
            name=f"x{9 - place}-{c.name[::-1]}",
            weight_dtypes=c.weight_dtypes[::-1],
            kv_cache_dtypes=c.kv_cache_dtypes[::-1],
        )
        for place, c in enumerate(renamed.spec.candidates)
    )[::-1]
    renamed.spec = replace(renamed.spec, candidates=turned)
    renamed.deployment = replace(renamed.deployment, spec=renamed.spec)
    for made in (plain, renamed):
        prepare(made)
        made.run(20)
        made.serve(40, "prose")
        made.serve(80, "code")
    assert [what(action) for action in plain.actions] == [what(action) for action in renamed.actions]


def what(action: object) -> tuple[object, ...]:
    limits = getattr(action, "limits", None)
    served = (
        (limits.model_uri, limits.exits_uri, limits.layer_budget, limits.max_batch_size, limits.precision)
        if limits
        else ()
    )
    job = getattr(action, "job", None)
    return (type(action).__name__, *served, *((job.precisions,) if job else ()))


ALIKE = story("general", "prose", events=())
"""Told with two bundles that are equally good on everything."""


MIXED = story("general", "small", events=(), weights="auto int8 int4", keys="int8 auto")


def make_alike(made: World) -> None:
    for key, model in made.truth.items():
        if model.digest == POOL["prose"].digest:
            made.truth[key] = replace(POOL["general"], digest=model.digest)


def clocks_do_not_matter(told: Story, prepare: Prepare = as_it_is) -> None:
    """Pods whose clocks are ahead, or behind, by the same length for ever: the same plans."""
    seen: list[list[object]] = []
    for hours in (0, -2, 3):
        plans: list[object] = []

        def skewed(made: World, hours: int = hours, plans: list[object] = plans) -> None:
            prepare(made)
            made.skew = lambda name: hours * timedelta(hours=1 - 2 * int(name[-1]))
            made.watch.append(lambda world, snapshot, plan: plans.append((plan.actions, plan.status)))

        tell(told, [], skewed)
        seen.append(plans)
    assert seen[0] == seen[1] == seen[2], "a pod's clock decided"
