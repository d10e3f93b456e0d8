"""Keeping what serves in step with the spec: number of pods, their template, settings.

Called by `rollout` when nothing changes. It must not change what callers get.
"""

from __future__ import annotations

from dataclasses import replace

from helios_contract.limits import Limits

from helios_operator.api.reasons import Reason
from helios_operator.api.types import RolloutStatus, Strategy
from helios_operator.decide.facts.fleet import (
    next_number,
)
from helios_operator.decide.plan import (
    Verdict,
    WriteLimits,
)
from helios_operator.decide.rollout import record
from helios_operator.decide.rollout.limits import limits_for, resynchronised
from helios_operator.decide.rollout.step import Carried, Step, shape
from helios_operator.decide.snapshot import Revision
from helios_operator.decide.weigh import hysteresis, triggers
from helios_operator.decide.weigh.strategy import Way, second_pod_fits


def keep_in_step(step: Step, routed: Revision) -> Carried:
    """The same service under the spec's settings of today: pods' number, template, limits."""
    done = step.still(_quiet(step), target=None, rollout=_completed(step, routed))
    if step.paused_by:
        return done
    if scaled := tuple(step.scaled(routed)):
        return replace(done, actions=scaled)
    if not hysteresis.backed_off(step.case).ok:
        return done
    if not routed.template_current and not step.case.must_leave:
        return _renew_pods(step, routed)
    limits = _resynchronised(step, routed)
    if limits is None:
        return done
    is_asked = triggers.is_edited(step.case) or _is_asked_anew(routed.limits, limits, step)
    reason = Reason.SPEC_CHANGED if is_asked else Reason.SETTINGS_CHANGED
    why = Verdict(True, reason, f"same service, new settings: {shape(limits)}")
    write = WriteLimits(revision=routed.number, limits=limits, why=why)
    return replace(done, actions=(write,), rollout=step.begun(routed.number, Way.LIMITS, why))


def _resynchronised(step: Step, routed: Revision) -> Limits | None:
    current = step.case.scene.current
    if current is None:
        return None
    if current.timing is None:
        current = replace(current, max_batch_size=routed.limits.max_batch_size)
    elif current.max_batch_size == 0:
        return None
    elif _is_good_enough(routed.limits.max_batch_size, current.max_batch_size, step):
        current = replace(current, max_batch_size=routed.limits.max_batch_size)
    wanted = limits_for(current, step.case.bench.contenders, step.case.snapshot, None, step.generation)
    renewed = resynchronised(routed.limits, wanted)
    if renewed is None and step.fleet.ahead:
        return replace(routed.limits, generation=step.generation)
    return renewed


def _is_asked_anew(told: Limits, wanted: Limits, step: Step) -> bool:
    """By what nothing but the spec says: an edit that had to wait is one still."""
    is_given = step.case.spec.limits.memory_mib is not None
    return (is_given and told.memory_mib != wanted.memory_mib) or _given(told) != _given(wanted)


def _given(limits: Limits) -> tuple[object, ...]:
    return (limits.max_queue_size, limits.audit.percent, limits.tokens_per_request, limits.live_prompts)


def _is_good_enough(told: int, wanted: int, step: Step) -> bool:
    """A row more or less is not worth telling: processes differ by a few MiB each time they start. And until
    a pod says what it holds, what an earlier one was told is the better guess."""
    most = step.case.spec.limits.max_batch_size
    tolerated = max(1, wanted * step.case.policy.settings_tolerance_percent // 100)
    close = not step.fleet.telemetry or abs(told - wanted) <= tolerated
    return told > 0 and close and (most is None or told <= most)


def _renew_pods(step: Step, routed: Revision) -> Carried:
    """The user asked for other pods: the same service in a new revision, beside the old one."""
    reason = Reason.SPEC_CHANGED if triggers.is_edited(step.case) else Reason.SETTINGS_CHANGED
    why = Verdict(True, reason, "the pod template changed: the same service in new pods")
    limits = replace(routed.limits, generation=step.generation)
    if step.case.spec.rollout.strategy is Strategy.RECREATE:
        return step.drain_for(routed, record.coming(limits, next_number(step.case.snapshot), step.case), why)
    fits = second_pod_fits(step.case.snapshot)
    return step.create(limits, Way.SURGE, why) if fits.ok else step.still(fits, target=None)


def _quiet(step: Step) -> Verdict:
    if step.waiting:
        return step.waiting
    if step.paused_by:
        return Verdict(True, Reason.PAUSED, step.paused_by)
    last = step.status.rollout
    if last and last.phase in ("Failed", "RolledBack"):
        return Verdict(False, Reason.ROLLED_BACK, last.message)
    return Verdict(True, Reason.NO_ROLLOUT, "what serves is what was chosen")


def _completed(step: Step, routed: Revision) -> RolloutStatus | None:
    before = step.status.rollout
    if before is None or before.phase not in ("Draining", "RollingOut"):
        return before
    return replace(before, revision=routed.number, phase="Completed", end_time=step.case.now)
