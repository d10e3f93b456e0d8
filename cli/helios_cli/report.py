"""What a report says of a deployment's life: a dataclass made from what is kept of it, wherever that came
from.

Made by `helios report` and `helios why --html`, drawn by `report_page`. Nothing is judged or drawn here. What
is not kept is not made up: `kept` says since when each part is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from helios_operator.decide.rollout.record import KEPT_HISTORY
from helios_operator.local.events import Echoes, Record

from helios_cli.places import Found
from helios_cli.report_options import Weighed, weighed
from helios_cli.views import Object, ProfileView, StatusView, precision_of, short_time


@dataclass(frozen=True)
class Span:
    """What served from one time to another: `layers` of `candidate`, weights/keys and values in `precision`,
    at most `batch` requests together."""

    begin: datetime
    end: datetime
    candidate: str
    layers: int
    precision: str
    batch: int


@dataclass(frozen=True)
class Change:
    """An entry of the history. `before` and `after` in words; `seconds`: how long it took."""

    time: datetime
    kind: str
    before: str
    after: str
    layers: int
    reason: str
    message: str
    result: str
    seconds: int | None


@dataclass(frozen=True)
class Count:
    """Requests served in all by some time, at least: what a pod served after it was last counted and before
    it ended is in no count."""

    time: datetime
    requests: int
    when: str


@dataclass(frozen=True)
class Judged:
    """The quality that a decision went by, in percent of full depth; `low`: the bound that had to hold."""

    time: datetime
    what: str
    percent: float
    low: float


@dataclass(frozen=True)
class Report:
    """`end`: of the charts, now or the last thing that is kept. `kept`: what there is of each part, in
    sentences."""

    status: StatusView
    made: datetime
    begin: datetime
    end: datetime
    reassessment: dict[str, Any]
    spans: list[Span]
    changes: list[Change]
    counts: list[Count]
    judged: list[Judged]
    weighed: Weighed
    records: list[Record]
    profiles: list[ProfileView]
    kept: list[str]


def of(found: Found, now: datetime) -> Report:
    """Of one deployment as it is kept. Asks a cluster for its events, rows and models."""
    rows = found.profiles()
    weighing = weighed(found.obj, rows, found.models(), found.text, now)
    return compose(found.obj, found.running, found.records(), rows, weighing, now)


def compose(
    obj: Object,
    running: bool,
    records: Sequence[Record],
    rows: Sequence[Object],
    weighing: Weighed,
    now: datetime,
) -> Report:
    status = StatusView.of(obj, running, now)
    echoes = Echoes()
    told = [record for record in records if not echoes.is_echo(record)]
    changes = [_change(entry) for entry in status.history]
    counts = list(_rising(_counts(obj)))
    known = [
        *(change.time for change in changes),
        *(count.time for count in counts),
        *(_time(record.time) for record in told),
    ]
    end = now if running else max(known, default=now)
    spans = _spans(status.history, end)
    profiles = [view for view in map(ProfileView.of, rows) if status.name in view.used_by]
    return Report(
        status=status,
        made=now,
        begin=min([*known, *(span.begin for span in spans)], default=end),
        end=end,
        reassessment=dict(obj.get("status", {}).get("reassessment", {})),
        spans=spans,
        changes=changes,
        counts=counts,
        judged=_judged(told, status.history),
        weighed=weighing,
        records=told,
        profiles=profiles,
        kept=list(_kept(status, told, counts)),
    )


def served(what: Mapping[str, Any]) -> str:
    """ "chat at 24 layers in int8/auto, 12 rows"."""
    rows = f"{what['maxBatchSize']} rows"
    return f"{what['candidate']} at {what['layerBudget']} layers in {precision_of(what)}, {rows}"


# -- what served, and the changes ----------------------------------------------------------------------------


def _spans(history: Sequence[Mapping[str, Any]], end: datetime) -> list[Span]:
    """By the changes that stayed. What served before the first one is known where that says what it left."""
    steps: list[tuple[datetime, Mapping[str, Any]]] = []
    before = history[0].get("from") if history else None
    if before and before.get("since"):
        steps.append((_time(before["since"]), before))
    steps += [(_time(entry["time"]), entry["to"]) for entry in history if entry["result"] == "Promoted"]
    ends = [*(begin for begin, _ in steps), end][1:]
    return [
        Span(
            begin,
            max(begin, until),
            what["candidate"],
            what["layerBudget"],
            precision_of(what),
            what["maxBatchSize"],
        )
        for (begin, what), until in zip(steps, ends, strict=True)
    ]


def _change(entry: Mapping[str, Any]) -> Change:
    before, after = entry.get("from"), entry["to"]
    return Change(
        time=_time(entry["time"]),
        kind=entry["kind"],
        before=served(before) if before else "",
        after=served(after),
        layers=after["layerBudget"],
        reason=entry.get("reason", ""),
        message=entry.get("message", ""),
        result=entry.get("result", ""),
        seconds=entry.get("seconds"),
    )


# -- traffic -------------------------------------------------------------------------------------------------


def _counts(obj: Object) -> Iterator[Count]:
    """Where a count stands beside a time."""
    status = obj.get("status", {})
    if created := obj["metadata"].get("creationTimestamp"):
        yield Count(_time(created), 0, "created")
    for entry in status.get("history", []):
        if "atRequest" in entry:
            yield Count(_time(entry["time"]), entry["atRequest"], f"change: {entry['kind']}")
    memory = status.get("reassessment", {})
    if memory.get("triggeredAt") and "triggeredAtRequest" in memory:
        yield Count(_time(memory["triggeredAt"]), memory["triggeredAtRequest"], "reassessment began")
    if memory.get("lastTime") and "requests" in memory:
        yield Count(_time(memory["lastTime"]), memory["requests"], "last reassessment")


def _rising(counts: Iterator[Count]) -> Iterator[Count]:
    """In order of time; a count below an earlier one says nothing new."""
    most = -1
    for count in sorted(counts, key=lambda count: (count.time, count.requests)):
        if count.requests >= most:
            most = count.requests
            yield count


# -- quality -------------------------------------------------------------------------------------------------


def _judged(records: Sequence[Record], history: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Of each decision once, though several actions carry it out. A repair's numbers stand under the kind of
    each remedy: those of the one that was chosen count."""
    found: list[Judged] = []
    for record in records:
        chosen = [f"{e['kind']}." for e in history if e.get("message") and e["message"] in record.message]
        for start in ("", *chosen):
            percent = record.numbers.get(f"{start}qualityPercent")
            low = record.numbers.get(f"{start}qualityLowPercent")
            if percent is None or low is None:
                continue
            last = found[-1] if found else None
            if last is None or (last.percent, last.low) != (percent, low):
                found.append(Judged(_time(record.time), record.reason, percent, low))
            break
    return found


# -- what is kept --------------------------------------------------------------------------------------------


def _kept(status: StatusView, records: Sequence[Record], counts: Sequence[Count]) -> Iterator[str]:
    if not status.history:
        yield "Changes: none yet."
    elif len(status.history) < KEPT_HISTORY:
        yield f"Changes: all {len(status.history)} are kept, since {short_time(status.history[0]['time'])}."
    else:
        since = short_time(status.history[0]["time"])
        yield f"Changes: the last {KEPT_HISTORY}, kept since {since}; earlier ones are not kept."
    if records:
        since = short_time(records[0].time)
        yield f"Decisions and events: {len(records)}, kept since {since}. {_BOUNDS}"
    else:
        yield f"Decisions and events: none are kept any more. {_BOUNDS}"
    if len(counts) > 1:
        yield "Requests: counted at changes and reassessments; counts in between are not kept."
    else:
        yield "Requests: no count is kept yet."
    yield (
        "Latencies and audited quality over time are in the metrics and not in this report: the condition "
        "SLOMet has the newest."
    )


_BOUNDS = "A state folder keeps the newest 400, an API server by default those of the last hour."


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
