"""The reasons that events and actions alone give, each with its sentence.

Those that conditions, decisions and candidates give are in `api.reasons`, where it says how to add one.
"""

from __future__ import annotations

from helios_operator.api.words import Where, Word


class EventReason(Word):
    """Why an event was sent, or something was done: no condition, decision or candidate shows it."""

    PROFILING_STARTED = "ProfilingStarted", "A profiling Job was started.", Where.EVENT
    PROFILING_FINISHED = "ProfilingFinished", "A profiling Job returned its results.", Where.EVENT
    ROW_EXPIRED = "RowExpired", "A profile beyond profiling.historyLimit was deleted.", Where.EVENT
    JOB_EXPIRED = "JobExpired", "A finished Job was deleted.", Where.EVENT
    REASSESSMENT_STARTED = "ReassessmentStarted", "A reassessment of what serves has started.", Where.EVENT
    AUDIT_ALARM = (
        "AuditAlarm",
        "Audited requests show a lasting change of quality.",
        Where.EVENT,
    )
    CONFIDENCE_ALARM = (
        "ConfidenceAlarm",
        "The confidence of requests shows a lasting change.",
        Where.EVENT,
    )
    TASK_ALARM = (
        "TaskAlarm",
        "What serves repeatedly fails tasks that it passed when it was profiled.",
        Where.EVENT,
    )
    BREACH_ALARM = (
        "BreachAlarm",
        "Too many tokens in the window are under the confidence threshold (the paper's trigger).",
        Where.EVENT,
    )
    TRAFFIC_MOVED = "TrafficMoved", "New connections go to the new revision.", Where.EVENT
    REVISION_DELETED = "RevisionDeleted", "A revision that serves nothing was deleted.", Where.EVENT
    ROLLOUT_COMPLETED = "RolloutCompleted", "The change is complete.", Where.EVENT
    LARGEST_REQUEST_FELL = (
        "LargestRequestFell",
        "The longest requests that were accepted before are now refused; the message gives the sizes.",
        Where.EVENT,
    )
    CRDS_OUTDATED = (
        "CrdsOutdated",
        "The CustomResourceDefinitions are older than the operator; some fields of the status are not kept.",
        Where.EVENT,
    )
