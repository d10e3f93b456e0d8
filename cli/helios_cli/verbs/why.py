"""`helios why NAME`: the last reassessment, what each candidate came to, and the newest decisions with
their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.errors import OperatorError

from helios_cli.arguments import HELIOS, Parser
from helios_cli.output import columns, show
from helios_cli.places import place
from helios_cli.views import PUBLISHED, WhyView, precision_of, short_time, weighs_precisions


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("why", "The last decisions, with their numbers.", program)
    parser.with_output().with_place().with_name()
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--html", type=Path, metavar="FILE", help="write what `helios report` does")
    either.add_argument("--last", type=int, default=20, metavar="N", help="how many decisions (default: 20)")
    options = parser.parse_args(argv)
    if options.html and options.output != "table":
        raise OperatorError("arguments", f"--html with --output {options.output}", "give one of them")
    with place(options) as here:
        found = here.find(options.name)
        if options.html:
            from helios_cli import report, report_page  # not before they are needed: they know the decisions

            report_page.write(report.of(found, datetime.now(UTC)), options.html)
            return 0
        view = WhyView.of(found.obj, found.records(), options.last)
    show(view, options.output, _table)
    return 0


def _table(view: WhyView) -> None:
    print(f"{view.name} serves {_served(view.active)}.")
    _print_reassessment(view.reassessment)
    if view.candidates:
        shown = weighs_precisions(view.candidates, view.active)
        titles = ("CANDIDATE", "STATE", *(("PRECISION",) if shown else ()), "FEASIBLE", "WHY")
        print("\n" + columns(titles, [_candidate(c, shown) for c in view.candidates]))
    if view.history:
        rows = [_change(entry) for entry in view.history]
        print("\n" + columns(("CHANGED", "KIND", "FROM", "TO", "REASON", "RESULT", "WHY"), rows))
    if view.decisions:
        print("\nDecisions, newest last:")
    for record in view.decisions:
        said = f"{record.about}: {record.reason}: {record.message}{_numbers(record.numbers)}"
        print(f"{record.time[11:19]}  {said}")


def _print_reassessment(reassessment: dict[str, Any]) -> None:
    if not reassessment.get("decision"):
        print("Nothing has been decided yet.")
        return
    when = short_time(reassessment.get("lastTime"))
    print(f"Last decision ({when}): {reassessment['decision']} / {reassessment.get('reason', '')}")
    print(f"  {reassessment.get('message', '')}")


def _served(served: dict[str, Any] | None) -> str:
    if served is None:
        return "nothing"
    what = f"{served['candidate']} at {served['layerBudget']} layers{_held(served, ' in ')}"
    return f"{what}, {served['maxBatchSize']} rows"


def _held(served: dict[str, Any], before: str) -> str:
    """Nothing where it is as published."""
    precision = precision_of(served)
    return "" if precision == PUBLISHED else f"{before}{precision}"


def _candidate(candidate: dict[str, Any], shown: bool) -> list[object]:
    held = (precision_of(candidate) if candidate.get("layerBudget") else None,) if shown else ()
    return [candidate["name"], candidate["state"], *held, _feasible(candidate), candidate.get("message")]


def _feasible(candidate: dict[str, Any]) -> str:
    """`no` only of what was weighed: that an option is not known to be feasible says nothing against it."""
    if candidate.get("feasible"):
        return "yes"
    is_open = candidate["state"] in ("Pending", "Profiling")
    never = candidate["state"] in ("Rejected", "Failed") and not candidate.get("timing")
    return "unmeasured" if is_open or never else "no"


def _change(entry: dict[str, Any]) -> list[object]:
    before, after = entry.get("from"), entry["to"]
    return [
        short_time(entry["time"]),
        entry["kind"],
        f"{before['candidate']}@{before['layerBudget']}{_held(before, ' ')}" if before else None,
        f"{after['candidate']}@{after['layerBudget']}{_held(after, ' ')}",
        entry.get("reason"),
        entry.get("result"),
        entry.get("message"),
    ]


def _numbers(numbers: dict[str, float]) -> str:
    return "  [" + ", ".join(f"{name}={value:g}" for name, value in numbers.items()) + "]" if numbers else ""
