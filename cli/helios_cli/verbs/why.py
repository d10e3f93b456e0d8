"""`helios why NAME`: the last reassessment, every option with its figures and its verdict, the changes, and
the newest decisions with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.errors import OperatorError

from helios_cli import options, weighing
from helios_cli.arguments import HELIOS, Parser
from helios_cli.options import OptionView
from helios_cli.output import columns, paragraph, show
from helios_cli.places import place
from helios_cli.views import PUBLISHED, WhyView, precision_of, short_time
from helios_cli.weighing import Weighed

_OTHER_SPEEDS = "speeds in `status` and in decisions are at today's pace"


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("why", "The last decisions, with their numbers.", program)
    parser.with_output().with_place().with_name()
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--html", type=Path, metavar="FILE", help="write what `helios report` does")
    either.add_argument("--last", type=int, default=20, metavar="N", help="how many decisions (default: 20)")
    asked = parser.parse_args(argv)
    if asked.html and asked.output != "table":
        raise OperatorError("arguments", f"--html with --output {asked.output}", "give one of them")
    with place(asked) as here:
        found = here.find(asked.name)
        if asked.html:
            from helios_cli import report, report_page  # not before they are needed

            report_page.write(report.of(found, datetime.now(UTC)), asked.html)
            return 0
        known = weighing.weighed(found.obj, found.profiles(), found.models(), found.text, datetime.now(UTC))
        view = WhyView.of(found.obj, found.records(), asked.last, _options(known), found.running, known.notes)
        objective = known.deployment.spec.slo.optimization_type if known.deployment else ""
        view = replace(view, objective=objective)
    show(view, asked.output, _table)
    return 0


def _options(known: Weighed) -> list[OptionView]:
    active = known.deployment.status.active if known.deployment else None
    return [OptionView.of(option, active) for option in known.options]


def _table(view: WhyView) -> None:
    for line in (*_head(view), *_reassessment(view)):
        print(paragraph(line, "  "))
    if view.options:
        told = f"Every option as timed, {options.order(view.objective)}; {_OTHER_SPEEDS}:"
        print(f"\n{paragraph(told)}\n")
        for line in options.table(view.options, view.objective):
            print(line)
    elif away := [c for c in view.candidates if c.get("message")]:
        rows = [[c["name"], c["state"], c["message"]] for c in away]
        print("\n" + columns(("CANDIDATE", "STATE", "WHY"), rows))
    for line in (*_left_out(view), *view.notes):
        print(paragraph(line, "  "))
    if view.history:
        print("\nChanges, newest last:\n")
        titles = ("CHANGED", "KIND", "FROM", "TO", "REASON", "RESULT")
        print(columns(titles, [_change(entry) for entry in view.history]))
        print(f"\n{paragraph(_last_change(view.history[-1]), '  ')}")
    if view.decisions:
        print("\nDecisions, newest last:")
    for record in view.decisions:
        said = f"{record.about}: {record.reason}: {record.message}{_numbers(record.numbers)}"
        print(paragraph(f"{record.time[11:19]}  {said}", "          "))


def _head(view: WhyView) -> Iterator[str]:
    if view.running:
        yield f"{view.name} serves {_served(view.active)}."
    else:
        yield f"{view.name} does not run; it served {_served(view.active)}."
    if view.no_data_since:
        yield f"No data since {short_time(view.no_data_since)}: nothing is decided until there is data again."
    if view.asked:
        yield f"Not answered yet: {view.asked}."


def _reassessment(view: WhyView) -> Iterator[str]:
    """The last outcome, with its time; of what is still weighed, since when."""
    memory = view.reassessment
    if not memory.get("reason"):
        yield (
            "Nothing is chosen yet; decisions so far are below."
            if view.decisions
            else "Nothing was done yet."
        )
        return
    said = (
        f"{memory.get('decision', 'Nothing is chosen yet')} / {memory['reason']}: {memory.get('message', '')}"
    )
    since, ended = memory.get("triggeredAt"), memory.get("lastTime")
    if memory.get("trigger") and since:
        yield f"Reassessment since {short_time(since)} ({memory['trigger']}): {said}"
    elif ended:
        yield f"Last decision ({short_time(ended)}): {said}"
    else:
        yield f"So far: {said}"


def _left_out(view: WhyView) -> Iterator[str]:
    """Candidates that no option was made of."""
    shown = {option.candidate for option in view.options}
    for candidate in view.candidates:
        if view.options and candidate["name"] not in shown:
            why = candidate.get("message") or "not inspected yet"
            yield f"{candidate['name']}: {candidate['state']}: {why}"


def _last_change(entry: dict[str, Any]) -> str:
    after = entry["to"]
    why = entry.get("message") or "no reason was given"
    return f"{entry['kind']} to {after['candidate']}@{after['layerBudget']}: {why}"


def _served(served: dict[str, Any] | None) -> str:
    """With the quality that everything else says, too."""
    if served is None:
        return "nothing"
    what = f"{served['candidate']} at {served['layerBudget']} layers{_held(served, ' in ')}"
    quality = f", quality {served['qualityPercent']} %" if "qualityPercent" in served else ""
    return f"{what}, {served['maxBatchSize']} rows{quality}"


def _held(served: dict[str, Any], before: str) -> str:
    """Nothing where it is as published."""
    precision = precision_of(served)
    return "" if precision == PUBLISHED else f"{before}{precision}"


def _change(entry: dict[str, Any]) -> list[object]:
    before, after = entry.get("from"), entry["to"]
    return [
        short_time(entry["time"]),
        entry["kind"],
        f"{before['candidate']}@{before['layerBudget']}{_held(before, ' ')}" if before else None,
        f"{after['candidate']}@{after['layerBudget']}{_held(after, ' ')}",
        entry.get("reason"),
        entry.get("result"),
    ]


def _numbers(numbers: dict[str, float]) -> str:
    return "  [" + ", ".join(f"{name}={value:g}" for name, value in numbers.items()) + "]" if numbers else ""
