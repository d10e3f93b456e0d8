"""The Secret with the token of the Control port: of the operator and of Jobs, never of clients.

Called by `apply`, once: a token that exists is kept. The caller draws the token; nothing here is random.
"""

from __future__ import annotations

import base64

from helios_operator.api.types import Deployment
from helios_operator.render import Manifest, names, owner

TOKEN_KEY = "token"


def control_token_secret(hd: Deployment, token: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owner.metadata(hd, names.control_token(hd.name)),
        "type": "Opaque",
        "data": {TOKEN_KEY: base64.b64encode(token.encode()).decode()},
    }


def token_of(secret: Manifest) -> str:
    return base64.b64decode(secret["data"][TOKEN_KEY]).decode()
