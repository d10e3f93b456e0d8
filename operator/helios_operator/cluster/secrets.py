"""The Secrets that a user's HeliosDeployment names, looked at before pods are made that would wait for them.

Called by `apply` for CreateRevision only: pods that run follow what becomes of theirs by themselves. It keeps
nothing of what it reads, and must not say what a Secret holds.
"""

from __future__ import annotations

from helios_operator.api.types import Deployment
from helios_operator.cluster.kinds import SECRET
from helios_operator.cluster.reads import Reads
from helios_operator.errors import UnsupportedError
from helios_operator.render import names, secrets


async def check_secrets(hd: Deployment, reads: Reads) -> None:
    """UnsupportedError for one that is missing, lacks a key, or is not for callers."""
    for each in secrets.mounted(hd):
        field, where = f"spec.service.{each.field}", f"Secret {each.secret}"
        if each.secret == names.control_token(hd.name):
            raise UnsupportedError(field, f"{where} is the Control port's own", "name one of yours")
        found = await reads.get(SECRET, hd.namespace, each.secret)
        reads.forget(SECRET, hd.namespace, each.secret)
        if found is None:
            raise UnsupportedError(field, f"{where} does not exist", f"create it in {hd.namespace}")
        keys = (found.get("data") or {}).keys()
        if missing := [key for key in each.keys if key not in keys]:
            raise UnsupportedError(field, f"{where} holds no {' and no '.join(missing)}", "add what it lacks")
        if not keys:
            raise UnsupportedError(
                field, f"{where} is empty", "add a key for each caller, its token the value"
            )
