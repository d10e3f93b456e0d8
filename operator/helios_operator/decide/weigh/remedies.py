"""What a change is called and what it costs.

Called by `reassess`. Shrinking and swapping heads are nearly free, growing keeps the KV, another precision
reads the weights again and loses it, switching may start pods too: the order in which remedies are taken. It
must not choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import IntEnum

from helios_contract.serves import AUTO, REFERENCE, Precision

from helios_operator.api.types import Decision, HistoryEntry, WorkloadSpec
from helios_operator.decide.policy import DEFAULT, Policy
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.strategy import Way

CHANGES = (
    Decision.SELECT,
    Decision.GROW,
    Decision.SHRINK,
    Decision.SWAP_HEADS,
    Decision.REQUANTIZE,
    Decision.SWITCH,
)


class Effort(IntEnum):
    """Classes of remedies, cheapest first."""

    NEARLY_FREE = 0
    LOADS_LAYERS = 1
    REQUANTIZES = 2
    LOSES_KV = 3


def kind_of(new: Option, current: Option) -> Decision:
    """What changing from one to the other is called; Keep when callers see no difference."""
    if new.service == current.service:
        return Decision.KEEP
    if new.service[0] != current.service[0]:
        return Decision.SWITCH
    if new.precision != current.precision:
        return Decision.REQUANTIZE
    if new.service[1] != current.service[1] and not (new.is_full_depth or current.is_full_depth):
        return Decision.SWAP_HEADS
    return Decision.GROW if new.layer_budget > current.layer_budget else Decision.SHRINK


def named(kind: Decision, what: object, precision: Precision) -> str:
    """ "Grow to chat at 27"; a change of precision names what it comes to, though it be the reference."""
    held = f" in {precision}" if kind is Decision.REQUANTIZE and precision == REFERENCE else ""
    return f"{kind} to {what}{held}"


def effort(new: Option, current: Option | None) -> Effort:
    if current is None or new.service[0] != current.service[0]:
        return Effort.LOSES_KV
    if new.precision != current.precision:
        return Effort.REQUANTIZES
    return Effort.LOADS_LAYERS if new.layer_budget > current.layer_budget else Effort.NEARLY_FREE


def cost_seconds(
    new: Option,
    current: Option | None,
    way: Way | None,
    workload: WorkloadSpec,
    history: Sequence[HistoryEntry],
    policy: Policy = DEFAULT,
) -> float:
    """Seconds of service that the change takes away; as long as the last change of its kind where one is
    known."""
    predicted = _predicted_seconds(new, current, way, workload, policy)
    kind = kind_of(new, current) if current else Decision.SWITCH
    measured = [
        float(entry.seconds) for entry in history if entry.kind is kind and entry.result == "Promoted"
    ]
    return max(predicted, measured[-1]) if measured else predicted


def dwell_seconds(history: Sequence[HistoryEntry], now: datetime, policy: Policy = DEFAULT) -> float:
    """How long the next choice is expected to last: as the last ones did, and at least as long as this one
    has."""
    times = [entry.time for entry in history if entry.result == "Promoted"][-policy.dwell_changes :]
    if len(times) < 2:
        return policy.max_dwell_seconds
    mean = (times[-1] - times[0]).total_seconds() / (len(times) - 1)
    return min(policy.max_dwell_seconds, max(mean, (now - times[-1]).total_seconds()))


def _predicted_seconds(
    new: Option, current: Option | None, way: Way | None, workload: WorkloadSpec, policy: Policy
) -> float:
    memory = new.timing.memory if new.timing else None
    layer_seconds = memory.layer_bytes / policy.load_bytes_per_second if memory else 0.0
    match effort(new, current):
        case Effort.NEARLY_FREE:
            return policy.step_seconds
        case Effort.LOADS_LAYERS:
            added = new.layer_budget - (current.layer_budget if current else 0)
            return policy.step_seconds + added * layer_seconds
        case Effort.REQUANTIZES:
            return (
                policy.step_seconds
                + _requantize_seconds(new, current, policy)
                + _prefill_seconds(new, workload)
            )
        case Effort.LOSES_KV:
            begins = _prefill_seconds(new, workload) if way is Way.IN_PLACE else policy.start_seconds
            return _read_seconds(new, policy) + begins


def _requantize_seconds(new: Option, current: Option | None, policy: Policy) -> float:
    """Where only keys and values are held otherwise, weights stay, and a deeper target adds its layers."""
    if current is None or new.precision.weight_dtype != current.precision.weight_dtype:
        return _read_seconds(new, policy)
    memory = new.timing.memory if new.timing else None
    added = max(0, new.layer_budget - current.layer_budget)
    return added * memory.layer_bytes / policy.load_bytes_per_second if memory else 0.0


def _read_seconds(new: Option, policy: Policy) -> float:
    """From the checkpoint, where weights are as published whatever they become."""
    published = new.contender.timing_at(replace(new.precision, weight_dtype=AUTO)) or new.contender.timing
    known = [timing.memory for timing in (published, new.timing) if timing and timing.memory]
    held = [memory.fixed_bytes + new.layer_budget * memory.layer_bytes for memory in known]
    return max(held, default=0) / policy.load_bytes_per_second


def _prefill_seconds(new: Option, workload: WorkloadSpec) -> float:
    """Running requests are prefilled again: the prompt, and on average half of the output."""
    performance, timing = new.performance, new.timing
    if performance is None or timing is None or timing.fit is None:
        return 0.0
    tokens = performance.expected.rows * (workload.isl + workload.osl / 2)
    return tokens * new.layer_budget * timing.fit.per_layer_row_ns / 1e9
