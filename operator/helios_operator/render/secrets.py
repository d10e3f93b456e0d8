"""The user's Secrets in serving pods: the certificate that the doors show, the CA of clients' certificates,
and callers' tokens.

Called by `deployment.py`. Secrets are mounted whole, so that the kubelet replaces their files when they are
rotated, which the server follows without a restart; none of them is ever read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from helios_operator.api.types import Deployment
from helios_operator.render.commands import Access

CERTIFICATE, KEY, CLIENT_CA = "tls.crt", "tls.key", "ca.crt"
"""Keys of the Secrets, and so names of files."""


@dataclass(frozen=True)
class Mounted:
    """A Secret, the field that names it, the keys that it has at least, the volume that holds it, and where
    that is mounted."""

    field: str
    secret: str
    keys: tuple[str, ...]
    volume: str
    path: str


_TLS, _CLIENTS, _TOKENS = "/etc/helios/tls", "/etc/helios/client-ca", "/etc/helios/tokens"


def mounted(hd: Deployment) -> Iterator[Mounted]:
    tls, auth = hd.spec.service.tls, hd.spec.service.auth
    if tls:
        yield Mounted("tls.secretName", tls.secret_name, (CERTIFICATE, KEY), "serving-tls", _TLS)
    if tls and tls.client_ca_secret_name:
        name = tls.client_ca_secret_name
        yield Mounted("tls.clientCASecretName", name, (CLIENT_CA,), "client-ca", _CLIENTS)
    if auth:
        yield Mounted("auth.secretName", auth.secret_name, (), "caller-tokens", _TOKENS)


def access(hd: Deployment) -> Access:
    """What the server is told of them."""
    tls, auth = hd.spec.service.tls, hd.spec.service.auth
    return Access(
        tls_cert=f"{_TLS}/{CERTIFICATE}" if tls else "",
        tls_key=f"{_TLS}/{KEY}" if tls else "",
        tls_client_ca=f"{_CLIENTS}/{CLIENT_CA}" if tls and tls.client_ca_secret_name else "",
        auth_tokens=_TOKENS if auth else "",
    )
