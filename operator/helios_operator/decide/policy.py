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
            "between texts, where a profile has only totals, and no other exit of it shows the deviation",
            "judgement",
        ),
    )
    min_baseline_texts: int = field(
        default=4,
        metadata=_about("texts", "needed for a baseline of a pod's detector", "judgement"),
    )
    min_compared_texts: int = field(
        default=12, metadata=_about("texts", "needed in each of two samples that are compared", "0050")
    )
    other_texts_errors: float = field(
        default=4.0,
        metadata=_about(
            "standard errors",
            "between two samples from which on their texts count as different kinds",
            "0050",
        ),
    )
    other_texts_margin: float = field(
        default=0.02,
        metadata=_about(
            "natural logarithm", "added to them, so that nearly equal texts count as the same kind", "0050"
        ),
    )
    min_audits: int = field(
        default=8, metadata=_about("requests", "audited, at least; fewer are no evidence", "0051")
    )
    task_confidence: float = field(
        default=0.95,
        metadata=_about("probability", "of the bound of the tasks passed, one-sided", "0162"),
    )
    min_tasks: int = field(
        default=20,
        metadata=_about("tasks", "that the reference must pass; fewer are too few to judge", "0162"),
    )
    tasks_at_once: int = field(
        default=6, metadata=_about("options", "that one Job tests, besides the reference", "0162")
    )
    enough_audits: int = field(
        default=16,
        metadata=_about(
            "requests",
            "audited, after which a case at the threshold is decided: waiting longer prolongs a bad service",
            "0051",
        ),
    )
    cold_requests: int = field(
        default=20,
        metadata=_about(
            "requests",
            "after a change that are no evidence; each win needs as many new ones",
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
        metadata=_about("steps", "served before today's pace is used", "judgement: some seconds of traffic"),
    )
    max_pace: float = field(
        default=2.0,
        metadata=_about(
            "factor",
            "by which today's steps may be slower or faster than profiled: more is noise of other processes",
            "judgement",
        ),
    )
    settings_tolerance_percent: int = field(
        default=10,
        metadata=_about("percent", "of the batch size: a smaller difference is not sent to the pods", "0056"),
    )
    shortlist_places: int = field(
        default=3, metadata=_about("candidates", "of the spec's list that are measured", "the paper's top-k")
    )
    most_precisions: int = field(
        default=6, metadata=_about("pairs", "of weights/KV that are measured per backbone", "0156")
    )
    min_corrections: int = field(
        default=2,
        metadata=_about(
            "candidates",
            "measured and published, before the published figures of others are corrected",
            "judgement: a single one may be wrong",
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
            "judgement: a slow disk; the last change of the same kind corrects it",
        ),
    )
    step_seconds: float = field(
        default=0.5,
        metadata=_about("seconds", "until a change of limits takes effect at a step boundary", "judgement"),
    )
    start_seconds: float = field(
        default=5.0, metadata=_about("seconds", "until a new process has started", "judgement")
    )
    max_dwell_seconds: float = field(
        default=600.0,
        metadata=_about("seconds", "for which a gain is counted, at most: traffic changes", "judgement"),
    )
    dwell_changes: int = field(
        default=5,
        metadata=_about(
            "changes", "in the past, from which the usual life of a choice is computed", "judgement"
        ),
    )

    # -- against flapping
    failure_backoff: timedelta = field(
        default=timedelta(seconds=30), metadata=_about("time", "after a change that failed", "judgement")
    )
    reversal_backoff: timedelta = field(
        default=timedelta(seconds=10),
        metadata=_about("time", "after going back, at least; or the cooldown, if longer", "judgement"),
    )
    max_backoff: timedelta = field(
        default=timedelta(hours=1), metadata=_about("time", "to which either grows, at most", "judgement")
    )
    backoff_factor: float = field(
        default=2.0,
        metadata=_about("factor", "by which the next back-off is longer", "the design's doubling"),
    )
    reversal_changes: int = field(
        default=2,
        metadata=_about(
            "changes", "in the past that count as going back when one of them is reverted", "judgement"
        ),
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
        metadata=_about("time", "the same for starting pods, which would slow the timing", "judgement"),
    )
    reference_patience: timedelta = field(
        default=timedelta(minutes=2),
        metadata=_about(
            "time",
            "without progress after which the first pod no longer waits for measurements",
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
        metadata=_about("time", "before a final failure is measured again", "judgement"),
    )
    failed_set_retry: timedelta = field(
        default=timedelta(seconds=30),
        metadata=_about("time", "the same on live prompts, which differ each time", "judgement"),
    )
    failed_set_factor: float = field(
        default=4.0,
        metadata=_about("factor", "by which each further set of live prompts waits longer", "judgement"),
    )
    set_lifetime: timedelta = field(
        default=timedelta(minutes=10),
        metadata=_about(
            "time", "for which further candidates are measured on the prompts of the first", "0032"
        ),
    )
    second_look: timedelta = field(
        default=timedelta(seconds=30),
        metadata=_about("time", "before a fault is checked again, at least", "judgement"),
    )
    last_look: timedelta = field(
        default=timedelta(minutes=10),
        metadata=_about("time", "before a fault is checked again, at most", "judgement"),
    )


DEFAULT = Policy()


def rows() -> Iterator[str]:
    """The knobs as a table in Markdown."""
    yield "| setting | default | unit | what it is | fixed by |"
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
