"""How a change reaches the pods: told to the running ones, or by new ones beside them, or after them.

Called by `reassess` (can it be made at all?) and by `rollout` (which then does it). Answers with a Verdict
that says which way and why; ok=False means wait. It must not act.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from helios_operator.api.reasons import Reason
from helios_operator.api.types import Strategy
from helios_operator.decide.plan import Verdict
from helios_operator.decide.snapshot import Revision, Snapshot
from helios_operator.decide.weigh.options import Option, memory_mib


class Way(StrEnum):
    LIMITS = "Limits"
    """Same backbone: depth, batch and heads change at a step boundary."""
    IN_PLACE = "InPlace"
    """Another model in the running pods: streams end or are prefilled again."""
    SURGE = "Surge"
    RECREATE = "Recreate"


@dataclass(frozen=True)
class Path:
    """`way` None: neither can be; wait."""

    way: Way | None
    verdict: Verdict


def path_for(option: Option, routed: Revision, serving_backbone: str, snapshot: Snapshot) -> Path:
    resolved = option.contender.resolved
    reachable = reaches(routed, option)
    same_backbone = resolved is not None and resolved.backbone == serving_backbone
    if same_backbone and reachable:
        return Path(
            Way.LIMITS, Verdict(True, Reason.LIMITS_CHANGING, "same backbone: sent to the running pods")
        )
    match snapshot.deployment.spec.rollout.strategy:
        case Strategy.RECREATE:
            return _go(
                Way.RECREATE,
                Reason.OUTAGE_BY_RECREATE,
                "strategy is Recreate: the old pods stop first, an outage",
            )
        case Strategy.IN_PLACE:
            return _in_place(option, reachable, "strategy is InPlace")
        case Strategy.SURGE:
            fits = second_pod_fits(snapshot)
            return (
                _go(Way.SURGE, Reason.ROLLOUT_STARTED, "strategy is Surge") if fits.ok else Path(None, fits)
            )
        case Strategy.AUTO:
            return _auto(option, reachable, snapshot)


def _auto(option: Option, reachable: bool, snapshot: Snapshot) -> Path:
    fits = second_pod_fits(snapshot)
    if fits.ok:
        return _go(Way.SURGE, Reason.ROLLOUT_STARTED, f"Auto chose Surge: {fits.message}")
    path = _in_place(option, reachable, f"Auto chose InPlace: {fits.message}")
    if path.way is None:
        return Path(
            None, Verdict(False, fits.reason, f"{fits.message}, and {path.verdict.message}", fits.numbers)
        )
    return path


def _in_place(option: Option, reachable: bool, why: str) -> Path:
    if not reachable:
        message = (
            f"no mount of the running pods reaches {option.contender.candidate.uri}: it needs a new revision"
        )
        return Path(None, Verdict(False, Reason.WAITING_FOR_ACCELERATOR, message))
    return _go(Way.IN_PLACE, Reason.LIMITS_CHANGING, why)


def _go(way: Way, reason: Reason, message: str) -> Path:
    return Path(way, Verdict(True, reason, message))


def second_pod_fits(snapshot: Snapshot) -> Verdict:
    """Room for the successor's pods beside the ones that serve."""
    pods = max(1, snapshot.deployment.spec.replicas)
    needed, free = pods * memory_mib(snapshot), snapshot.free_memory_mib
    figures: dict[str, float] = {"neededMiB": needed, "freeMiB": free}
    accelerators = snapshot.accelerators_free
    if accelerators is not None:
        return _enough_accelerators(pods, accelerators)
    if not needed:
        message = "how much memory a second pod would have is not known; set limits.memoryMiB"
        return Verdict(False, Reason.WAITING_FOR_ACCELERATOR, message)
    if needed > free:
        message = f"a second pod needs {needed} MiB, {free} MiB free"
        return Verdict(False, Reason.WAITING_FOR_ACCELERATOR, message, figures)
    return Verdict(
        True, Reason.ROLLOUT_STARTED, f"a second pod fits ({needed} MiB of {free} MiB free)", figures
    )


def _enough_accelerators(pods: int, free: int) -> Verdict:
    """Each brings its own memory."""
    figures: dict[str, float] = {"neededAccelerators": pods, "freeAccelerators": free}
    if free < pods:
        message = f"a second pod needs {pods} accelerators, {free} free"
        return Verdict(False, Reason.WAITING_FOR_ACCELERATOR, message, figures)
    message = f"a second pod fits ({pods} of {free} free accelerators)"
    return Verdict(True, Reason.ROLLOUT_STARTED, message, figures)


def reaches(revision: Revision, option: Option) -> bool:
    """The running pods mount what the option needs."""
    uris = (option.contender.candidate.uri, option.contender.candidate.exits or "")
    claims = [uri.removeprefix("pvc://").split("/")[0] for uri in uris if uri.startswith("pvc://")]
    return revision.claims is None or all(claim in revision.claims for claim in claims)
