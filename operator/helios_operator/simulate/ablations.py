"""The same traffic without one mechanism of the loop, or with one of its constants turned: what each is
worth.

Called by `helios simulate --ablate`. A variant changes the spec, or the policy, and nothing else. It must not
run anything itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from helios_operator.api.types import DeploymentSpec, Trigger
from helios_operator.decide.policy import DEFAULT, Policy, said_briefly
from helios_operator.errors import OperatorError

INTERVALS = (50, 150, 500)
_FACTORS = (0.5, 2.0)
MECHANISMS, POLICY = "mechanisms", "policy"


@dataclass(frozen=True)
class Variant:
    name: str
    spec: DeploymentSpec
    policy: Policy = DEFAULT


def variants(spec: DeploymentSpec, wanted: Sequence[str]) -> list[Variant]:
    """wanted: `mechanisms`, `policy`, or knobs of the policy by name. OperatorError: a word that is none."""
    knobs = [each.name for each in fields(Policy)]
    found: list[Variant] = []
    for word in wanted:
        if word == MECHANISMS:
            found += _mechanisms(spec)
        elif word == POLICY or word in knobs:
            found += (v for name in knobs if word in (POLICY, name) for v in _turned(spec, name))
        else:
            known = f"{MECHANISMS}, {POLICY}, or a constant: {', '.join(knobs)}"
            raise OperatorError("ablate", f"{word!r} is nothing that can be ablated", f"use {known}")
    return found


def _mechanisms(spec: DeploymentSpec) -> Iterator[Variant]:
    rules = spec.reassessment
    yield Variant("no audit", replace(spec, reassessment=replace(rules, audit_percent=0)))
    counter = replace(rules, audit_percent=0, trigger=Trigger.CONFIDENCE)
    yield Variant("breach counter only", replace(spec, reassessment=counter))
    eager = replace(rules, cooldown=timedelta(0), consecutive_success_limit=1, min_improvement_percent=0)
    calm = replace(
        DEFAULT, margin=0.0, reversal_backoff=timedelta(0), failure_backoff=timedelta(0), cold_requests=0
    )
    yield Variant("no hysteresis", replace(spec, reassessment=eager), calm)
    for requests in INTERVALS:
        often = replace(rules, every_requests=requests)
        yield Variant(f"reassessed every {requests}", replace(spec, reassessment=often))


def _turned(spec: DeploymentSpec, name: str) -> Iterator[Variant]:
    """Half and double; a probability halves and doubles what lacks to 1."""
    value = getattr(DEFAULT, name)
    for factor in _FACTORS:
        turned = _times(name, value, factor)
        if turned != value:
            changed: dict[str, Any] = {name: turned}
            yield Variant(f"{name} {said_briefly(turned)}", spec, replace(DEFAULT, **changed))


def _times(name: str, value: Any, factor: float) -> Any:
    if name.endswith("confidence"):
        return 1 - (1 - value) * factor
    return round(value * factor) if isinstance(value, int) else value * factor
