"""Labels: what selects pods, and what tells a person whose object this is.

Used by every module of `render`. Selectors are a promise: a Deployment's is immutable, and a Service that
selects by another set loses its pods, so a constant here never changes its value.
"""

from __future__ import annotations

DEPLOYMENT = "helios.dev/deployment"
"""On all that belongs to a HeliosDeployment, but of pods only on those that serve: the scale subresource
counts by it."""
REVISION = "helios.dev/revision"
COMPONENT = "helios.dev/component"
PROFILES = "helios.dev/profiles"
"""On the pods of profiling Jobs: the HeliosDeployment that they measure for."""
JOB_KIND = "helios.dev/job-kind"

SERVER = "server"
PROFILE = "profile"

TEMPLATE_HASH = "helios.dev/template-hash"
"""Annotation of a revision's Deployment."""
DRAINING = "helios.dev/draining"
"""Annotation of a revision's Deployment that ends its streams."""
JOB_SPEC = "helios.dev/job-spec"
"""Annotation of a Job: what it was asked, as JSON."""

MANAGER = "helios-operator"
"""Field manager of server-side apply, and app.kubernetes.io/managed-by."""


def common(deployment: str) -> dict[str, str]:
    """Of every object."""
    return {
        "app.kubernetes.io/managed-by": MANAGER,
        "app.kubernetes.io/part-of": "helios",
        DEPLOYMENT: deployment,
    }


def serving(deployment: str) -> dict[str, str]:
    """Selects the pods that serve, of every revision."""
    return {DEPLOYMENT: deployment, COMPONENT: SERVER}


def revision(deployment: str, number: int) -> dict[str, str]:
    """Selects the pods of one revision."""
    return serving(deployment) | {REVISION: str(number)}


def profiling(deployment: str) -> dict[str, str]:
    """Selects the pods of the deployment's Jobs."""
    return {COMPONENT: PROFILE, PROFILES: deployment}
