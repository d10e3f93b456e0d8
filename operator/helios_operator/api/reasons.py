"""Every reason, each with its sentence and the places where it appears: all that a condition, an event or a
verdict may give as its reason.

Used by whoever writes a status, an event or a Verdict. To add a reason, add a line here, or to
`api.event_reasons` if events and actions alone give it; `docs/conditions.md` is generated from both. The
sentence explains the reason to a person who meets it in `kubectl describe` or `helios why`; the message of a
condition carries the numbers. Reasons are API: they are added, never renamed; one that nothing says has no
place here, and `tests/decide/test_reasons.py` provokes each.
"""

from __future__ import annotations

from helios_operator.api.event_reasons import EventReason
from helios_operator.api.words import Where, Word


class Reason(Word):
    """Of conditions, decisions and candidates; events give many of them too."""

    # -- Available ---------------------------------------------------------------------------------
    MINIMUM_REPLICAS_SERVING = "MinimumReplicasServing", "At least one pod serves.", Where.AVAILABLE
    NO_REPLICA_SERVING = (
        "NoReplicaServing",
        "No pod serves; the message gives the reason.",
        Where.AVAILABLE,
        Where.READY,
    )
    STARTING = "Starting", "The first pod is starting.", Where.AVAILABLE, Where.READY
    SCALED_TO_ZERO = (
        "ScaledToZero",
        "spec.replicas is 0, so nothing serves. Profiles are kept.",
        Where.AVAILABLE,
        Where.READY,
    )

    # -- Progressing -------------------------------------------------------------------------------
    NO_ROLLOUT = "NoRollout", "The chosen option serves; nothing is changing.", Where.PROGRESSING
    ROLLOUT_STARTED = (
        "RolloutStarted",
        "A new revision is starting; the old one serves until the new one is ready.",
        Where.PROGRESSING,
        Where.EVENT,
    )
    LIMITS_CHANGING = (
        "LimitsChanging",
        "New limits are sent to the running pods; no pod restarts.",
        Where.PROGRESSING,
        Where.EVENT,
    )
    WAITING_FOR_ACCELERATOR = (
        "WaitingForAccelerator",
        "No second pod fits and the change cannot be made in place; it waits for free capacity.",
        Where.PROGRESSING,
        Where.EVENT,
        Where.DECISION,
    )
    WAITING_FOR_DRAIN = (
        "WaitingForDrain",
        "New traffic goes to the new revision; the old one finishes its streams.",
        Where.PROGRESSING,
        Where.EVENT,
    )
    ANALYSING = (
        "Analysing",
        "The new revision serves and is being watched before it is kept.",
        Where.PROGRESSING,
    )
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "The new revision did not become ready in time; the old one was kept.",
        Where.PROGRESSING,
        Where.READY,
        Where.EVENT,
        Where.DECISION,
    )
    ROLLED_BACK = (
        "RolledBack",
        "The change was undone; what served before serves again.",
        Where.PROGRESSING,
        Where.EVENT,
        Where.DECISION,
    )
    PAUSED = (
        "Paused",
        "spec.rollout.paused or the annotation helios.dev/paused holds every change.",
        Where.PROGRESSING,
        Where.DECISION,
    )
    OUTAGE_BY_RECREATE = (
        "OutageByRecreate",
        "spec.rollout.strategy is Recreate: the old pods stop before the new ones serve.",
        Where.PROGRESSING,
        Where.EVENT,
    )

    # -- Profiled ----------------------------------------------------------------------------------
    ALL_CANDIDATES_CURRENT = (
        "AllCandidatesCurrent",
        "Every candidate that is considered has current timing and quality profiles.",
        Where.PROFILED,
    )
    PROFILING_RUNNING = "ProfilingRunning", "Profiling Jobs are running.", Where.PROFILED
    PROFILE_FAILED = (
        "ProfileFailed",
        "A profiling Job failed and will not be tried again before the spec changes.",
        Where.PROFILED,
        Where.CANDIDATE,
        Where.EVENT,
    )
    NO_PROMPTS = (
        "NoPrompts",
        "Quality cannot be measured; set live, configMapRef or inline in spec.profiling.prompts.",
        Where.PROFILED,
        Where.READY,
        Where.DECISION,
        Where.CANDIDATE,
    )
    NO_TASKS = (
        "NoTasks",
        "spec.slo.minTaskPercent is set and no tasks can be read; the message says which and why.",
        Where.PROFILED,
        Where.DECISION,
        Where.CANDIDATE,
    )
    WAITING_FOR_PROMPTS = (
        "WaitingForPrompts",
        "Live prompts are being collected from traffic.",
        Where.PROFILED,
        Where.DECISION,
    )
    WAITING_FOR_IDLE = (
        "WaitingForIdle",
        "A timing Job waits until no request runs, so that it and the traffic do not disturb each other.",
        Where.PROFILED,
    )
    NO_CAPACITY_FOR_PROFILING = (
        "NoCapacityForProfiling",
        "No accelerator or memory is free for a profiling Job.",
        Where.PROFILED,
    )

    # -- SLOMet ------------------------------------------------------------------------------------
    WITHIN_TARGET = "WithinTarget", "Live latency and quality are within the SLO.", Where.SLO_MET
    LATENCY_MISSED = (
        "LatencyMissed",
        "A latency percentile is above the SLO.",
        Where.SLO_MET,
        Where.READY,
        Where.DECISION,
    )
    QUALITY_MISSED = (
        "QualityMissed",
        "Live quality is below spec.slo.minQualityPercent.",
        Where.SLO_MET,
        Where.READY,
        Where.DECISION,
    )
    TASKS_MISSED = (
        "TasksMissed",
        "What serves passes too few of the tasks that the reference passes: below spec.slo.minTaskPercent.",
        Where.SLO_MET,
        Where.READY,
        Where.DECISION,
    )
    TOO_FEW_TASKS = (
        "TooFewTasks",
        "The reference passes too few tasks to judge by spec.slo.minTaskPercent.",
        Where.SLO_MET,
        Where.DECISION,
        Where.CANDIDATE,
    )
    INSUFFICIENT_DATA = "InsufficientData", "Too few requests since the last change to judge.", Where.SLO_MET
    NO_TARGET = "NoTarget", "spec.slo names no latency and no quality to meet.", Where.SLO_MET

    # -- Ready -------------------------------------------------------------------------------------
    SERVING = "Serving", "What serves meets the spec.", Where.READY
    INVALID_SPEC = (
        "InvalidSpec",
        "The object breaks a rule of its schema; what served before keeps serving.",
        Where.READY,
        Where.EVENT,
    )
    STATUS_UNREADABLE = (
        "StatusUnreadable",
        "The status was written by another release, or is damaged: nothing is decided, what serves is kept.",
        Where.READY,
        Where.EVENT,
    )
    PASS_FAILED = (
        "PassFailed",
        "A pass over the object failed; the operator tries again, and what serves is kept.",
        Where.READY,
        Where.EVENT,
    )
    NAME_TAKEN = (
        "NameTaken",
        "An object of somebody else has a name that HELIOS needs; it is not touched.",
        Where.READY,
        Where.EVENT,
    )
    WRITE_REFUSED = (
        "WriteRefused",
        "The API server refused an object (a quota, a webhook, a missing right); the message says why.",
        Where.READY,
        Where.EVENT,
    )
    PODS_REFUSED = (
        "PodsRefused",
        "The cluster refuses its pods (a quota, a limit range, a webhook); the message says why.",
        Where.READY,
        Where.EVENT,
    )
    NO_FEASIBLE_CANDIDATE = (
        "NoFeasibleCandidate",
        "No candidate meets the SLO within the memory; what served before, or the reference, serves.",
        Where.READY,
        Where.DECISION,
        Where.EVENT,
    )
    NOT_PROFILED = (
        "NotProfiled",
        "The reference candidate serves at full depth until the candidates are measured.",
        Where.READY,
        Where.DECISION,
    )

    # -- Decisions: why something changes ----------------------------------------------------------
    REFERENCE_CANDIDATE = (
        "ReferenceCandidate",
        "Nothing is measured yet: the reference serves, at the largest depth that fits.",
        Where.DECISION,
        Where.EVENT,
    )
    FIRST_SELECTION = (
        "FirstSelection",
        "The first choice from measurements.",
        Where.DECISION,
        Where.EVENT,
    )
    ABOVE_MIN_IMPROVEMENT = (
        "AboveMinImprovement",
        "The gain is above minImprovementPercent and outweighs the cost of the change.",
        Where.DECISION,
        Where.EVENT,
    )
    QUALITY_RESTORED = (
        "QualityRestored",
        "Quality was below the SLO; this brings it back.",
        Where.DECISION,
        Where.EVENT,
    )
    LATENCY_RESTORED = (
        "LatencyRestored",
        "Latency was above the SLO; this brings it back.",
        Where.DECISION,
        Where.EVENT,
    )
    TASKS_RESTORED = (
        "TasksRestored",
        "Too few tasks passed; this brings them back.",
        Where.DECISION,
        Where.EVENT,
    )
    SPEC_CHANGED = (
        "SpecChanged",
        "The spec no longer allows what serves, or asks for something else.",
        Where.READY,
        Where.DECISION,
        Where.EVENT,
    )
    CANDIDATES_CHANGED = (
        "CandidatesChanged",
        "What serves is no longer allowed, though the spec is unchanged: the catalogue or the files changed.",
        Where.READY,
        Where.DECISION,
        Where.EVENT,
    )
    SETTINGS_CHANGED = (
        "SettingsChanged",
        "The same service with new limits or new pods, because of newer measurements.",
        Where.DECISION,
        Where.EVENT,
    )
    PINNED = "Pinned", "spec.selection pins the candidate.", Where.DECISION, Where.EVENT
    BY_HAND = "ByHand", "A person asked for it.", Where.DECISION, Where.EVENT
    REPLICAS_CHANGED = "ReplicasChanged", "spec.replicas changed.", Where.DECISION, Where.EVENT

    # -- Decisions: why nothing changes ------------------------------------------------------------
    BELOW_MIN_IMPROVEMENT = (
        "BelowMinImprovement",
        "The best alternative would gain less than minImprovementPercent.",
        Where.DECISION,
    )
    ALREADY_BEST = "AlreadyBest", "No alternative is better than what serves.", Where.DECISION
    COST_EXCEEDS_GAIN = (
        "CostExceedsGain",
        "The change would cost more than it gains before the next change is likely.",
        Where.DECISION,
    )
    WAITING_FOR_WINS = (
        "WaitingForWins",
        "An alternative won; it must win consecutiveSuccessLimit times in a row.",
        Where.DECISION,
    )
    COOLING_DOWN = "CoolingDown", "The last change is younger than reassessment.cooldown.", Where.DECISION
    BACKING_OFF = (
        "BackingOff",
        "A change was undone or failed; the next one waits, twice as long each time.",
        Where.DECISION,
    )
    NO_EVIDENCE = "NoEvidence", "Too few audited requests to judge.", Where.DECISION
    COLD_SAMPLES = (
        "ColdSamples",
        "The last change is too recent: samples from its first requests are not evidence.",
        Where.DECISION,
    )
    MEASURING = "Measuring", "Candidates are being measured on the new traffic.", Where.DECISION
    WITHIN_NOISE = (
        "WithinNoise",
        "The uncertainty range includes the threshold; more evidence is needed.",
        Where.DECISION,
    )
    NO_FEASIBLE_OPTION = (
        "NoFeasibleOption",
        "No candidate and depth meets the SLO on this traffic; what serves is kept.",
        Where.DECISION,
        Where.EVENT,
    )
    ADVISORY = (
        "Advisory",
        "selection.policy is Advisory: changes are only recommended.",
        Where.DECISION,
        Where.EVENT,
    )
    SUSPENDED = "Suspended", "spec.reassessment.suspend is true.", Where.DECISION
    OUTSIDE_WINDOW = (
        "OutsideWindow",
        "Switching models waits for reassessment.maintenanceWindow.",
        Where.DECISION,
        Where.PROGRESSING,
    )
    LIMITS_REFUSED = (
        "LimitsRefused",
        "A pod refused the new limits and kept the old ones; its message says why.",
        Where.DECISION,
        Where.EVENT,
    )
    NOT_ENOUGH_MEMORY = (
        "NotEnoughMemory",
        "The memory does not hold one request at the shallowest allowed depth.",
        Where.DECISION,
        Where.EVENT,
        Where.CANDIDATE,
    )

    # -- Candidates --------------------------------------------------------------------------------
    NOT_SHORTLISTED = (
        "NotShortlisted",
        "Other candidates are better by their published figures; only the best maxCandidates are measured.",
        Where.CANDIDATE,
    )
    UNRESOLVED = "Unresolved", "The model or its exit heads cannot be found or do not match.", Where.CANDIDATE
    QUALITY_TOO_LOW = "QualityTooLow", "No allowed depth reaches minQualityPercent.", Where.CANDIDATE
    TASKS_NOT_MEASURED = (
        "TasksNotMeasured",
        "It meets latency and quality; it is not chosen before its tasks are measured.",
        Where.CANDIDATE,
        Where.DECISION,
    )
    TASKS_TOO_LOW = "TasksTooLow", "No allowed option passes minTaskPercent of the tasks.", Where.CANDIDATE
    LATENCY_TOO_HIGH = "LatencyTooHigh", "No allowed depth meets the latency SLO.", Where.CANDIDATE
    PRECISION_UNSUPPORTED = (
        "PrecisionUnsupported",
        "The hardware, or the release of the pods, supports none of the allowed precisions.",
        Where.CANDIDATE,
    )
    OUT_OF_BUDGET = "OutOfBudget", "No exit is within the bounds of layerBudget.", Where.CANDIDATE

    # -- HeliosProfile, HeliosModel ----------------------------------------------------------------
    MEASURED = "Measured", "The Job returned its measurement.", Where.PROFILE
    MEASUREMENT_FAILED = "MeasurementFailed", "The Job failed; the message says why.", Where.PROFILE
    REVISION_FOUND = "RevisionFound", "The uri resolves to the revision in the message.", Where.MODEL
    REVISION_NOT_FOUND = "RevisionNotFound", "The uri cannot be resolved; the message says why.", Where.MODEL


EVERY_REASON: tuple[Word, ...] = (*Reason, *EventReason)
"""In the order of docs/conditions.md."""
