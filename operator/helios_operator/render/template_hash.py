"""When must a revision be replaced though its model is right? When this hash is no longer the one that it
carries.

Called by `deployment.py` (recorded at creation) and by the cluster's `observe` (compared). It covers what the
user writes and only new pods can take up. It must never cover anything that a newer operator could render
otherwise, nor limits that pods are told, heads, replicas or drain: an upgrade and a live change restart
nothing. Tests hold golden values.
"""

from __future__ import annotations

import hashlib
import json

from helios_operator.api.types import Deployment
from helios_operator.render import Manifest

_CHARACTERS = 12


def template_hash(hd: Deployment) -> str:
    """Of the canonical JSON of `identity`: 48 bits, in hexadecimal."""
    text = json.dumps(identity(hd), ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_CHARACTERS]


def identity(hd: Deployment) -> Manifest:
    """What is hashed. A field that later versions add must be absent while the user leaves it unset.

    The claims of candidates are not here: `volumes.unreached` asks of a running revision whether it mounts
    what is to be served, so that a candidate added or removed restarts nothing.
    """
    spec = hd.spec
    document: Manifest = {"modelName": spec.model_name}
    if spec.template:
        document["template"] = spec.template
    if cache := spec.model_cache:
        document["modelCache"] = [cache.pvc_name, cache.mount_path, cache.read_only]
    if auth := spec.auth_secret:
        document["authSecret"] = [auth.name, auth.key]
    if tokens := spec.limits.max_context_tokens:
        document["maxContextTokens"] = tokens
    if not spec.serves_http:
        document["httpPort"] = 0
    if tls := spec.service.tls:
        document["tls"] = [tls.secret_name, tls.client_ca_secret_name]
    if callers := spec.service.auth:
        document["auth"] = callers.secret_name
    return document
