"""The limits document of a choice: everything that a pod must know to serve it.

Called by `rollout`. It must not choose: option and evidence come in, a Limits goes out.
"""

from __future__ import annotations

from dataclasses import replace

from helios_contract.limits import Audit, Limits, TaskProbe
from helios_contract.serves import Bundle

from helios_operator.api.rows import RowPhase
from helios_operator.api.types import Trigger
from helios_operator.decide.facts.candidates import Contender, backbones
from helios_operator.decide.facts.evidence import Evidence
from helios_operator.decide.facts.task_passes import tasks_identity
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh.options import Option, memory_mib


def limits_for(
    option: Option,
    contenders: tuple[Contender, ...],
    snapshot: Snapshot,
    evidence: Evidence | None,
    generation: int,
) -> Limits:
    contender, spec = option.contender, snapshot.deployment.spec
    resolved = contender.resolved
    if resolved is None:
        raise ValueError(f"{contender.name} is not resolved")
    return Limits(
        generation=generation,
        candidate=contender.name,
        model_uri=contender.candidate.uri,
        model_revision=resolved.revision,
        exits_uri=contender.candidate.exits or "",
        exits_digest=resolved.exits_digest,
        layer_budget=option.layer_budget,
        weight_dtype=option.precision.weight_dtype,
        kv_cache_dtype=option.precision.kv_cache_dtype,
        max_batch_size=option.max_batch_size,
        memory_mib=memory_mib(snapshot),
        max_queue_size=spec.limits.max_queue_size,
        exit_layers=tuple(sorted(layer for layer in resolved.exit_layers if layer < resolved.num_layers)),
        audit=Audit(
            percent=spec.reassessment.audit_percent,
            bundles=_bundles(contender, contenders),
            quality=evidence.baseline(contender, option.layer_budget, option.precision) if evidence else None,
        ),
        tokens_per_request=spec.workload.isl + spec.workload.osl,
        live_prompts=_live_prompts(snapshot),
        breach_threshold=_breach_threshold(option, snapshot),
        task_probe=_task_probe(option, snapshot),
    )


def resynchronised(current: Limits, wanted: Limits) -> Limits | None:
    """The same service under the settings that the spec and the candidates now ask for; None when nothing
    differs. Baselines stay: they belong to the evidence that the choice was made on. So does what a newer
    release wrote."""
    audit = replace(wanted.audit, quality=current.audit.quality, confidence=current.audit.confidence)
    renewed = replace(wanted, generation=current.generation, audit=audit, extra=current.extra)
    return None if current == renewed else replace(renewed, generation=wanted.generation)


def _bundles(contender: Contender, contenders: tuple[Contender, ...]) -> tuple[Bundle, ...]:
    """Every bundle of the backbone, each once: the audit scores them side by side."""
    resolved = contender.resolved
    family = backbones(contenders).get(resolved.backbone, ()) if resolved else ()
    refs = {
        member.resolved.exits_digest: Bundle(
            member.name, member.candidate.exits or "", member.resolved.exits_digest
        )
        for member in (*reversed(family), contender)
        if member.resolved
    }
    return tuple(refs[digest] for digest in sorted(refs))


def _task_probe(option: Option, snapshot: Snapshot) -> TaskProbe | None:
    """None until it is known what the option passes."""
    probe, asked = snapshot.deployment.spec.reassessment.task_probe, snapshot.tasks
    if probe is None or asked is None or not asked.digest:
        return None
    mine = tasks_identity(option.contender, option.layer_budget, option.precision, asked.digest)
    rows = (row for row in snapshot.task_rows if row.identity == mine and row.phase is RowPhase.COMPLETE)
    row = next(rows, None)
    return TaskProbe(asked.digest, probe.every.total_seconds(), probe.count, row.passes) if row else None


def _live_prompts(snapshot: Snapshot) -> int:
    live = snapshot.deployment.spec.profiling.prompts.live
    return live.max_prompts if live and live.consent else 0


def _breach_threshold(option: Option, snapshot: Snapshot) -> float:
    """0 leaves it to the bundle's calibration."""
    reassessment, resolved = snapshot.deployment.spec.reassessment, option.contender.resolved
    if reassessment.confidence_threshold_percent is not None:
        return reassessment.confidence_threshold_percent / 100
    if reassessment.trigger is Trigger.CONFIDENCE and resolved:
        return resolved.breach_thresholds.get(option.layer_budget, 0.0)
    return 0.0
