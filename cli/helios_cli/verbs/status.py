"""`helios status [NAME]`: what serves, the conditions and the candidates; without NAME, one line per
deployment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from helios_cli.arguments import HELIOS, Parser
from helios_cli.output import columns, paragraph, show
from helios_cli.places import Found, place
from helios_cli.views import StatusView, precision_of, short_age, weighs_precisions

_FIGURES = ("BATCH", "TOK/S", "QUALITY", "MESSAGE")
_SPEEDS = "TOK/S is predicted at today's pace, that of the pods' newest steps; `why` shows it as timed."


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("status", "What serves, the conditions and the candidates.", program)
    parser.with_output().with_place(several=True).add_argument(
        "name", metavar="NAME", nargs="?", help="name of the HeliosDeployment (default: one line for each)"
    )
    options = parser.parse_args(argv)
    with place(options) as here:
        if options.name is not None:
            show(_view(here.find(options.name)), options.output, _table)
            return 0
        views, nothing = [_view(found) for found in here.all()], here.nothing
    show(views, options.output, lambda views: print(_lines(views, options.everywhere) if views else nothing))
    return 0


def _view(found: Found) -> StatusView:
    return StatusView.of(found.obj, found.running, datetime.now(UTC))


def _table(view: StatusView) -> None:
    print(_lines([view]))
    if not view.running:
        print("\nNot running: this is its last state. Start it with `helios up FILE`.")
    elif view.observed_generation < view.generation:
        print(f"\nThe operator has seen generation {view.observed_generation} of {view.generation}.")
    if view.conditions:
        rows = [[c["type"], c["status"], c["reason"], c.get("message")] for c in view.conditions]
        print("\n" + columns(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows))
    if view.candidates:
        shown = weighs_precisions(view.candidates, view.active)
        titles = ("CANDIDATE", "STATE", "LAYERS", *_precision(shown), *_FIGURES)
        print("\n" + columns(titles, [_candidate(c, shown) for c in view.candidates]))
    if any("tokensPerSecond" in candidate for candidate in view.candidates):
        print("\n" + paragraph(_SPEEDS))


def _lines(views: Sequence[StatusView], namespaces: bool = False) -> str:
    shown = any(weighs_precisions(v.candidates, v.active) for v in views)
    titles: tuple[str, ...] = (
        "NAME",
        "READY",
        "CANDIDATE",
        "LAYERS",
        *_precision(shown),
        "BATCH",
        "QUALITY",
        "PODS",
        "PHASE",
        "ADDRESS",
        "AGE",
    )
    rows = [
        [v.name, v.ready, v.candidate, v.layers, *((v.precision,) if shown else ()), v.batch,
         v.quality_percent, v.replicas, v.phase, v.endpoint, short_age(v.age_seconds)]
        for v in views
    ]  # fmt: skip
    if namespaces:
        titles = ("NAMESPACE", *titles)
        rows = [[v.namespace, *row] for v, row in zip(views, rows, strict=True)]
    return columns(titles, rows)


def _precision(shown: bool) -> tuple[str, ...]:
    return ("PRECISION",) if shown else ()


def _candidate(candidate: dict[str, Any], shown: bool) -> list[object]:
    """The precision is that of its best option, where it has one."""
    names = ("maxBatchSize", "tokensPerSecond", "qualityPercent", "message")
    depth = candidate.get("layerBudget")
    held = (precision_of(candidate) if depth else None,) if shown else ()
    return [candidate["name"], candidate.get("state"), depth, *held, *(candidate.get(n) for n in names)]
