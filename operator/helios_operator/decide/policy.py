"""Every constant that decides, in one value: what an operator of a fleet, or a simulation, may turn.

Passed to `decide`, carried by `Bench`, `Table`, evidence and `Case`. Each knob says its unit and what fixed
it: a record of docs/decisions, or plainly a judgement. What the user turns stands in the spec, never here.
`python -m helios_operator.decide.policy` prints the table of docs/decisions-explained.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import timedelta


def _about(unit: str, meaning: str, fixed_by: str) -> dict[str, str]:
    return {"unit": unit, "meaning": meaning, "fixed_by": fixed_by}


@dataclass(frozen=True)
class Policy:
    """The defaults are what `helios` runs with. Units are in the metadata, beside each name's meaning."""

    # -- how sure a figure is
    confidence: float = field(
        default=0.90, metadata=_about("probability", "of every bound, one-sided", "0051")
    )
    assumed_relative_deviation: float = field(
        default=0.15,
        metadata=_about(
            "share of the mean",
            "between texts, where a row keeps totals only and no other exit of it tells",
            "judgement",
        ),
    )
    min_baseline_texts: int = field(
        default=4,
        metadata=_about("texts", "behind a baseline that a pod's detector starts from", "judgement"),
    )
    min_compared_texts: int = field(
        default=12, metadata=_about("texts", "in each of two samples that are compared", "0050")
    )
    other_texts_errors: float = field(
        default=4.0,
        metadata=_about("standard errors", "apart, and two samples are of other kinds of text", "0050"),
    )
    other_texts_margin: float = field(
        default=0.02,
        metadata=_about("natural logarithm", "added to them: as good as the same is no other kind", "0050"),
    )
    min_audits: int = field(default=8, metadata=_about("requests", "audited; fewer are no evidence", "0051"))
    task_confidence: float = field(
        default=0.95,
        metadata=_about("probability", "of the bound of the tasks passed, one-sided", "0162"),
    )
    min_tasks: int = field(
        default=20, metadata=_about("tasks", "that the reference passes; fewer tell nothing", "0162")
    )
    tasks_at_once: int = field(
        default=6, metadata=_about("options", "that one Job asks beside the reference", "0162")
    )
    enough_audits: int = field(
        default=16,
        metadata=_about(
            "requests",
            "audited settle what still straddles a threshold: waiting on prolongs a bad service",
            "0051",
        ),
    )
    cold_requests: int = field(
        default=20,
        metadata=_about(
            "requests",
            "after a change that are no evidence; and as many new ones stand behind each win",
            "0053",
        ),
    )

    # -- what could serve
    default_min_quality_percent: int = field(
        default=95,
        metadata=_about("percent", "asked for where the SLO asks for neither quality nor agreement", "0054"),
    )
    min_steps: int = field(
        default=200,
        metadata=_about("steps", "of serving behind today's pace", "judgement: some seconds of traffic"),
    )
    max_pace: float = field(
        default=2.0,
        metadata=_about(
            "factor",
            "by which today's steps may last longer, or shorter, than profiled: more is a neighbour's noise",
            "judgement",
        ),
    )
    settings_tolerance_percent: int = field(
        default=10,
        metadata=_about("percent", "of the rows that fit: less is not worth telling the pods", "0056"),
    )
    shortlist_places: int = field(
        default=3, metadata=_about("candidates", "of an inline list that are measured", "the paper's top-k")
    )
    most_precisions: int = field(
        default=6, metadata=_about("pairs", "of weights and keys that are measured of a backbone", "0156")
    )
    min_corrections: int = field(
        default=2,
        metadata=_about(
            "candidates",
            "measured and published, before one claim scales another",
            "judgement: one may be the wrong claim",
        ),
    )

    # -- whether a change pays
    margin: float = field(
        default=1.1, metadata=_about("factor", "by which the gain must exceed the cost", "judgement")
    )
    load_bytes_per_second: float = field(
        default=200e6,
        metadata=_about(
            "bytes per second",
            "at which layers are read",
            "judgement: no fast disk; the last change of the same kind corrects it",
        ),
    )
    step_seconds: float = field(
        default=0.5,
        metadata=_about("seconds", "until a change of limits is seen at a step boundary", "judgement"),
    )
    start_seconds: float = field(
        default=5.0, metadata=_about("seconds", "until a new process has started", "judgement")
    )
    max_dwell_seconds: float = field(
        default=600.0,
        metadata=_about("seconds", "for which a gain is counted at most: traffic changes", "judgement"),
    )
    dwell_changes: int = field(
        default=5, metadata=_about("changes", "back tell how long a choice lasts here", "judgement")
    )

    # -- against flapping
    failure_backoff: timedelta = field(
        default=timedelta(seconds=30), metadata=_about("time", "after a change that failed", "judgement")
    )
    reversal_backoff: timedelta = field(
        default=timedelta(seconds=10),
        metadata=_about("time", "after going back, at least; else the cooldown", "judgement"),
    )
    max_backoff: timedelta = field(
        default=timedelta(hours=1), metadata=_about("time", "that either grows to", "judgement")
    )
    backoff_factor: float = field(
        default=2.0,
        metadata=_about("factor", "by which the next back-off is longer", "the design's doubling"),
    )
    reversal_changes: int = field(
        default=2,
        metadata=_about("changes", "back count: what one of them left is gone back to", "judgement"),
    )
    crashes: int = field(
        default=3,
        metadata=_about("restarts", "after which a pod that never became ready is given up", "0073"),
    )

    # -- when is measured
    idle_patience: timedelta = field(
        default=timedelta(seconds=20),
        metadata=_about("time", "that a Timing Job waits for a moment without requests", "judgement"),
    )
    start_patience: timedelta = field(
        default=timedelta(minutes=2),
        metadata=_about(
            "time", "the same for pods that start: what is timed beside them seems slow", "judgement"
        ),
    )
    reference_patience: timedelta = field(
        default=timedelta(minutes=2),
        metadata=_about(
            "time",
            "without progress after which the first pod waits no longer for what is measured before it",
            "0099",
        ),
    )
    retry: timedelta = field(
        default=timedelta(seconds=10),
        metadata=_about("time", "before the second attempt of a Job", "judgement"),
    )
    retry_factor: float = field(
        default=2.0, metadata=_about("factor", "by which each further attempt waits longer", "judgement")
    )
    failed_row_retry: timedelta = field(
        default=timedelta(hours=1),
        metadata=_about("time", "before what failed for good is measured again", "judgement"),
    )
    failed_set_retry: timedelta = field(
        default=timedelta(seconds=30),
        metadata=_about("time", "the same on live prompts, which are others each time", "judgement"),
    )
    failed_set_factor: float = field(
        default=4.0,
        metadata=_about("factor", "by which each further set of live prompts waits longer", "judgement"),
    )
    set_lifetime: timedelta = field(
        default=timedelta(minutes=10),
        metadata=_about("time", "for which the rest is measured on the prompts of the first ones", "0032"),
    )
    second_look: timedelta = field(
        default=timedelta(seconds=30),
        metadata=_about("time", "at least, before a fault is looked at again", "judgement"),
    )
    last_look: timedelta = field(
        default=timedelta(minutes=10), metadata=_about("time", "at most, before that", "judgement")
    )


DEFAULT = Policy()


def rows() -> Iterator[str]:
    """The knobs as a table in Markdown."""
    yield "| knob | default | unit | what it is | fixed by |"
    yield "| --- | --- | --- | --- | --- |"
    for knob in fields(Policy):
        said = knob.metadata
        value = said_briefly(knob.default)
        yield f"| `{knob.name}` | {value} | {said['unit']} | {said['meaning']} | {said['fixed_by']} |"


def said_briefly(value: object) -> str:
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds())
        size, unit = next((s, u) for s, u in ((3600, "h"), (60, "min"), (1, "s")) if seconds % s == 0)
        return f"{seconds // size} {unit}"
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else f"{value:,.0f}"


if __name__ == "__main__":
    print("\n".join(rows()))
