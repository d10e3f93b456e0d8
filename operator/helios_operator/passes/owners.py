"""Who owns a row of the history table: every HeliosDeployment that uses it, as long as it is there.

Called by the runtimes with what a HeliosProfile says of its owners. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from helios_operator.api.types import Deployment, DeploymentStatus, Owner


def of(profile: Mapping[str, Any] | None) -> tuple[Owner, ...]:
    """As the object says; none of one that does not exist yet."""
    references = ((profile or {}).get("metadata") or {}).get("ownerReferences") or ()
    return tuple(Owner(reference["name"], reference["uid"]) for reference in references)


def with_user(
    profile: Mapping[str, Any] | None, deployment: Deployment, there: Collection[str]
) -> tuple[Owner, ...]:
    """Those it is to have once this deployment uses it. `there`: uids of all HeliosDeployments."""
    return (*others(profile, deployment, there), Owner(deployment.name, deployment.uid))


def others(
    profile: Mapping[str, Any] | None, deployment: Deployment, there: Collection[str]
) -> tuple[Owner, ...]:
    """Owners that are still there, apart from this one: when there are none, nobody else uses the row."""
    return tuple(owner for owner in of(profile) if owner.uid in there and owner.uid != deployment.uid)


def lacks(profile: Mapping[str, Any], deployment: Deployment) -> bool:
    """Is it used by this deployment without being owned by it?"""
    return Owner(deployment.name, deployment.uid) not in of(profile)


def used(status: DeploymentStatus) -> list[str]:
    """Names of the rows that a status rests on: of what serves, of what will, of every candidate."""
    served = [served for served in (status.active, status.target) if served]
    names = [name for s in served for name in (s.timing, s.quality)]
    names += [name for c in status.candidates for name in (c.timing, c.quality, *c.profiles)]
    return sorted({name for name in names if name})
