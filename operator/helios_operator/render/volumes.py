"""PersistentVolumeClaims behind `pvc://` uris: which are needed, where they are mounted, what a pod cannot
reach.

Used by `pod.py`, and by the cluster's `observe` to say that a bundle or model needs a new revision. Claims
are mounted read-only at /volumes/CLAIM, so that `pvc://CLAIM/path` is a path under `--volumes`. It does not
know whether a claim exists: a pod with a missing one never starts, so the caller names only claims that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from helios_contract.limits import Limits

from helios_operator.api.types import Candidate
from helios_operator.render import Manifest, containers, names

ROOT = "/volumes"
_SCHEME = "pvc://"


def claims(uris: Iterable[str]) -> tuple[str, ...]:
    """Sorted, each once."""
    return tuple(sorted({_claim(uri) for uri in uris if uri.startswith(_SCHEME)}))


def candidate_uris(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(uri for candidate in candidates for uri in (candidate.uri, candidate.exits) if uri)


def served_uris(limits: Limits) -> tuple[str, ...]:
    """All that a pod under these limits opens: the model, its heads, and the heads that the audit scores
    beside."""
    bundles = (bundle.uri for bundle in limits.audit.bundles)
    return tuple(uri for uri in (limits.model_uri, limits.exits_uri, *bundles) if uri)


def mounted(template: Mapping[str, Any]) -> tuple[str, ...]:
    """The claims that a running revision's pod template mounts where `pvc://` looks for them."""
    mounts = containers.named(template, containers.SERVER).get("volumeMounts") or ()
    paths = (mount["mountPath"] for mount in mounts)
    return tuple(path.removeprefix(f"{ROOT}/") for path in paths if path.startswith(f"{ROOT}/"))


def unreached(limits: Limits, template: Mapping[str, Any]) -> tuple[str, ...]:
    """The uris of `limits` that no mount of a running revision's pod template reaches."""
    reached = mounted(template)
    uris = (uri for uri in served_uris(limits) if uri.startswith(_SCHEME))
    return tuple(dict.fromkeys(uri for uri in uris if _claim(uri) not in reached))


def claim_volume(claim: str, *, read_only: bool = True) -> Manifest:
    source = {"claimName": claim} | ({"readOnly": True} if read_only else {})
    return {"name": names.volume("claim", claim), "persistentVolumeClaim": source}


def claim_mount(claim: str) -> Manifest:
    return {"name": names.volume("claim", claim), "mountPath": f"{ROOT}/{claim}", "readOnly": True}


def _claim(uri: str) -> str:
    return uri.removeprefix(_SCHEME).partition("/")[0]
