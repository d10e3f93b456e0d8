"""`helios status [NAME]`: what serves, the conditions and the candidates; without NAME, one line per
deployment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from helios_operator.local.store import DEPLOYMENT

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.output import columns, show
from helios_cli.views import StatusView, short_age


def run(argv: Sequence[str]) -> int:
    parser = Parser("status", "What serves, the conditions and the candidates.").with_output().with_state()
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="of the HeliosDeployment (default: a line for each)"
    )
    options = parser.parse_args(argv)
    now = datetime.now(UTC)
    if options.name is None:
        views = [
            StatusView.of(obj, found.running, now)
            for found in state.every(options.state)
            for obj in found.store.objects(DEPLOYMENT)
        ]
        show(views, options.output, lambda lines: print(_lines(lines)))
        return 0
    found = state.holding(options.name, options.state)
    view = StatusView.of(found.store.get(DEPLOYMENT, options.name), found.running, now)
    show(view, options.output, _table)
    return 0


def _table(view: StatusView) -> None:
    print(_lines([view]))
    if not view.running:
        print("\nNot running: this is what it last was. Start it with `helios up FILE`.")
    if view.conditions:
        rows = [[c["type"], c["status"], c["reason"], c.get("message")] for c in view.conditions]
        print("\n" + columns(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows))
    if view.candidates:
        rows = [_candidate(c) for c in view.candidates]
        print(
            "\n"
            + columns(("CANDIDATE", "STATE", "LAYERS", "BATCH", "TOKENS/S", "QUALITY %", "MESSAGE"), rows)
        )


def _lines(views: Sequence[StatusView]) -> str:
    titles = ("NAME", "READY", "MODEL", "LAYERS", "BATCH", "QUALITY %", "PODS", "PHASE", "ADDRESS", "AGE")
    rows = [
        [v.name, v.ready, v.candidate, v.layers, v.batch, v.quality_percent, v.replicas, v.phase, v.endpoint,
         short_age(v.age_seconds)]
        for v in views
    ]  # fmt: skip
    return columns(titles, rows) if rows else "No deployments. Start one with `helios up FILE`."


def _candidate(candidate: dict[str, Any]) -> list[object]:
    names = ("name", "state", "layerBudget", "maxBatchSize", "tokensPerSecond", "qualityPercent", "message")
    return [candidate.get(name) for name in names]
