"""Which evidence a reassessment may rest on, and whether there is enough of it.

Called by `reassess`. Live audits judge the serving backbone on the traffic itself; other backbones are judged
by profiles, on live prompts that came after the shift. What came before a change or an alarm is not evidence.
It must not weigh options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helios_contract.limits import Baseline
from helios_contract.serves import REFERENCE, Precision
from helios_contract.telemetry import OWN, AuditRow

from helios_operator.api.reasons import Reason
from helios_operator.api.timestamps import NEVER
from helios_operator.api.types import Trigger
from helios_operator.decide.facts import prompts, quality, tally
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import Evidence, LiveEvidence, ProfileEvidence, same_backbone
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.facts.tally import Heard
from helios_operator.decide.plan import Verdict
from helios_operator.decide.weigh.case import Case
from helios_operator.decide.weigh.triggers import Cause, pending_alarms


@dataclass(frozen=True)
class Gathered:
    """`verdict` not ok: what is missing; `wait` says whether it is worth waiting for. `prompts`: digest of
    the live set to measure on."""

    evidence: Evidence | None
    verdict: Verdict
    wait: bool = False
    prompts: str = ""


@dataclass(frozen=True)
class Combined:
    """The serving backbone by its audits, every other by the profiles."""

    live: LiveEvidence
    profiles: ProfileEvidence | None

    @property
    def source(self) -> str:
        return self.live.source

    @property
    def samples(self) -> int:
        return self.live.samples

    def quality(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Estimate | None:
        evidence = self._for(contender)
        return evidence.quality(contender, layer, precision) if evidence else None

    def agreement(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None:
        evidence = self._for(contender)
        return evidence.agreement(contender, layer, precision) if evidence else None

    def baseline(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Baseline | None:
        evidence = self._for(contender)
        return evidence.baseline(contender, layer, precision) if evidence else None

    def _for(self, contender: Contender) -> Evidence | None:
        return self.live if same_backbone(self.live.serving, contender) else self.profiles


@dataclass(frozen=True)
class BreachEvidence:
    """The paper's policy: what serves is breached. The remedies are the remaining layers, all of them, or
    another backbone, both as profiled."""

    serving: Contender
    layer: int
    profiles: ProfileEvidence | None
    source: str = "the confidence breach counter"
    samples: int = 100
    """Texts that a breach counts for."""

    def quality(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Estimate | None:
        if self._is_breached(contender, layer):
            return quality.exactly(0.0, self.samples)
        return self.profiles.quality(contender, layer, precision) if self.profiles else None

    def agreement(
        self, contender: Contender, layer: int, precision: Precision = REFERENCE
    ) -> Estimate | None:
        if self._is_breached(contender, layer):
            return quality.exactly(0.0, self.samples)
        return self.profiles.agreement(contender, layer, precision) if self.profiles else None

    def baseline(self, contender: Contender, layer: int, precision: Precision = REFERENCE) -> Baseline | None:
        return self.profiles.baseline(contender, layer, precision) if self.profiles else None

    def _is_breached(self, contender: Contender, layer: int) -> bool:
        full = contender.resolved.num_layers if contender.resolved else 0
        return same_backbone(self.serving, contender) and (layer < full or layer <= self.layer)


def gather(case: Case) -> Gathered:
    """For the reassessment under way."""
    if case.memory.prompts:
        return _on_new_prompts(case)
    if case.memory.trigger == Cause.ALARM and not _tells_of_tasks_alone(case):
        return _since_alarm(case)
    return _since_change(case)


def on_fresh_prompts(case: Case, since: Mapping[str, int]) -> Gathered:
    """A set of live prompts that are all newer, for the backbones that no audit sees. `since`: the first
    request that counts, by boot; of another boot nobody knows which do."""
    source = case.spec.profiling.prompts
    if not (source.live and source.live.consent):
        message = "another backbone can only be judged on live text: set profiling.prompts.live"
        return Gathered(None, Verdict(False, Reason.NO_PROMPTS, message))
    for telemetry in case.fleet.telemetry:
        found = telemetry.prompts
        first = since.get(telemetry.boot_id)
        if found and found.digest and first is not None and found.from_request >= first:
            message = (
                f"measuring every candidate on {found.prompts} prompts since request {found.from_request}"
            )
            return Gathered(None, Verdict(False, Reason.MEASURING, message), wait=True, prompts=found.digest)
    message = f"waiting for live prompts after request {min(since.values(), default=0)}"
    return Gathered(None, Verdict(False, Reason.WAITING_FOR_PROMPTS, message), wait=True)


def _on_new_prompts(case: Case) -> Gathered:
    measured = tuple(c for c in case.bench.contenders if c.competes and c.quality_on(case.memory.prompts))
    if not case.measuring_done:
        message = f"measuring on new prompts: {len(measured)} candidates so far"
        return Gathered(
            None, Verdict(False, Reason.MEASURING, message), wait=True, prompts=case.memory.prompts
        )
    if case.contender not in measured:
        return Gathered(None, Verdict(False, Reason.NO_EVIDENCE, "the new prompts could not be measured"))
    evidence = ProfileEvidence(case.memory.prompts, measured, case.now, case.policy)
    return Gathered(evidence, Verdict(True, Reason.MEASURED, evidence.source))


def _since_alarm(case: Case) -> Gathered:
    alarms = [heard for heard in pending_alarms(case) if heard.alarm.kind != tally.TASKS]
    if not alarms and tally.is_silent(case.memory, case.fleet):
        message = "the pod that raised the alarm does not answer"
        return Gathered(None, Verdict(False, Reason.NO_EVIDENCE, message), wait=True)
    if not alarms or case.contender is None:
        return Gathered(
            None, Verdict(False, Reason.NO_EVIDENCE, "the pod that raised the alarm has restarted")
        )
    if case.spec.reassessment.trigger is Trigger.CONFIDENCE:
        return _since_breach(case, case.contender)
    if case.spec.reassessment.audit_percent == 0 or (
        case.serves_full_depth and (case.several_backbones or _compare_with_themselves(alarms, case))
    ):
        return on_fresh_prompts(case, since_alarms(alarms))
    audits, least = _most_telling(alarms, case), case.policy.min_audits
    if len(audits) < least:
        message = f"{len(audits)} of {least} audited requests since the shift"
        return Gathered(None, Verdict(False, Reason.NO_EVIDENCE, message), wait=True)
    evidence = case.live(audits, case.contender, is_other_traffic=True)
    return Gathered(evidence, Verdict(True, Reason.MEASURED, evidence.source))


def _tells_of_tasks_alone(case: Case) -> bool:
    """The traffic is what it was: what is known of it stands."""
    kinds = {heard.alarm.kind for heard in pending_alarms(case)}
    return kinds == {tally.TASKS}


def _compare_with_themselves(alarms: Sequence[Heard], case: Case) -> bool:
    """Audits of full depth that would find nothing, or hardly any that would: what the precision costs on
    this traffic, prompts of it tell, where there will be some."""
    live = case.spec.profiling.prompts.live
    if case.precision == REFERENCE or not (live and live.consent):
        return False
    audits = _most_telling(alarms, case)
    telling = [row for row in audits if row.reference != OWN]
    return len(telling) < min(len(audits), case.policy.min_audits)


def since_alarms(alarms: Sequence[Heard]) -> dict[str, int]:
    """The first request after the first shift, by boot."""
    since: dict[str, int] = {}
    for heard in alarms:
        boot, first = heard.telemetry.boot_id, heard.alarm.since_request
        since[boot] = min(since.get(boot, first), first)
    return since


def _most_telling(alarms: Sequence[Heard], case: Case) -> tuple[AuditRow, ...]:
    """Since the newest alarm that has enough of them; before that, since the one that has most."""
    found = [heard.audits for heard in alarms]
    enough = (audits for audits in found if len(audits) >= case.policy.min_audits)
    return next(enough, max(found, key=len))


def _since_breach(case: Case, contender: Contender) -> Gathered:
    serving = case.fleet.serving
    layer = serving.layer_budget if serving else 0
    evidence = BreachEvidence(contender, layer, case.profiles)
    return Gathered(evidence, Verdict(True, Reason.MEASURED, evidence.source))


def _since_change(case: Case) -> Gathered:
    """Audits since the last change or alarm; without enough of them, the profiles if nothing speaks against
    them."""
    audits, contender = case.fleet.audits_since_change(), case.contender
    since, least, cold = case.fleet.requests_since_change, case.policy.min_audits, case.policy.cold_requests
    is_cold = since < cold
    profiles = case.profiles
    is_other_traffic = profiles is not None and _is_of_other_traffic(profiles, audits, case)
    is_judged_by_them = case.several_backbones or (case.several_precisions and is_other_traffic)
    if is_judged_by_them and (profiles is None or _is_stale(profiles, audits, case)):
        fresh = on_fresh_prompts(case, _since_change_of_limits(case))
        if fresh.prompts and (profiles is None or fresh.prompts != profiles.prompts_digest):
            return fresh
        profiles = None if is_other_traffic else profiles
    if contender and not is_cold and len(audits) >= least:
        live = case.live(audits, contender, is_other_traffic=is_other_traffic)
        evidence: Evidence = Combined(live, profiles)
        return Gathered(evidence, Verdict(True, Reason.MEASURED, evidence.source))
    if case.memory.trigger == Cause.REQUESTS and case.spec.reassessment.audit_percent:
        if is_cold:
            message = f"{since} of {cold} requests since the last change"
            return Gathered(None, Verdict(False, Reason.COLD_SAMPLES, message))
        message = f"{len(audits)} of {least} audited requests since the last change or alarm"
        return Gathered(None, Verdict(False, Reason.NO_EVIDENCE, message))
    stored = case.profiles
    if stored is None and (lacking := prompts.missing(case.snapshot)):
        return Gathered(None, Verdict(False, Reason.NO_PROMPTS, f"quality cannot be measured: {lacking}"))
    if stored is None:
        return Gathered(None, Verdict(False, Reason.NOT_PROFILED, "nothing is measured"))
    return Gathered(stored, Verdict(True, Reason.MEASURED, stored.source))


def _is_stale(profiles: ProfileEvidence, audits: tuple[AuditRow, ...], case: Case) -> bool:
    completed = profiles.completed or NEVER
    is_old = completed + case.spec.reassessment.interval < case.now
    return is_old or _is_of_other_traffic(profiles, audits, case)


def _is_of_other_traffic(profiles: ProfileEvidence, audits: tuple[AuditRow, ...], case: Case) -> bool:
    """The traffic has changed since: an alarm is younger than the rows, or the audited prompts are of another
    kind than the profiled ones. At full depth no alarm may tell: there the audited quality is 100 % whatever
    comes."""
    if (profiles.completed or NEVER) < (case.memory.shifted_at or NEVER):
        return True
    if case.contender is None:
        return False
    live, profiled = case.live(audits, case.contender).bits_per_byte, profiles.bits_per_byte(case.contender)
    return quality.are_other_texts(live, profiled, case.policy)


def _since_change_of_limits(case: Case) -> dict[str, int]:
    """The first request after it, by boot."""
    return {t.boot_id: t.requests_finished - t.requests_since_change + 1 for t in case.fleet.telemetry}
