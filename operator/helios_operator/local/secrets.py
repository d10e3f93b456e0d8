"""The Secrets of a deployment on one machine: folders beside the claims, or what `helios up` was told.

Called by the site, for what pods are started with, and before a revision is made. A Secret that the spec
names is VOLUMES/NAME, with a file for each of its keys. It must not do without one that is asked for: pods
are told where it should be, and say that it is missing.
"""

from __future__ import annotations

from pathlib import Path

from helios_operator.api.types import Deployment
from helios_operator.errors import UnsupportedError
from helios_operator.render.commands import Access
from helios_operator.render.secrets import CERTIFICATE, CLIENT_CA, KEY


def access(hd: Deployment, volumes: Path, given: Access) -> Access:
    """`given`: by the command line, which is heeded first."""
    tls, auth = hd.spec.service.tls, hd.spec.service.auth
    own = volumes / tls.secret_name if tls and not given.tls_cert else None
    clients = volumes / tls.client_ca_secret_name if tls and tls.client_ca_secret_name else None
    return Access(
        tls_cert=str(own / CERTIFICATE) if own else given.tls_cert,
        tls_key=str(own / KEY) if own else given.tls_key,
        tls_client_ca=given.tls_client_ca or (str(clients / CLIENT_CA) if clients else ""),
        auth_tokens=given.auth_tokens or (str(volumes / auth.secret_name) if auth else ""),
    )


def refuse_missing(hd: Deployment, volumes: Path, given: Access) -> None:
    """UnsupportedError for a Secret of the spec that is not here: serving in clear text, or to everybody,
    what was asked not to be is no way to ignore a field."""
    wanted = access(hd, volumes, given)
    tls, auth = hd.spec.service.tls, hd.spec.service.auth
    if tls:
        _there("tls.secretName", wanted.tls_cert, "--tls-cert and --tls-key")
        _there("tls.secretName", wanted.tls_key, "--tls-cert and --tls-key")
    if tls and tls.client_ca_secret_name:
        _there("tls.clientCASecretName", wanted.tls_client_ca, "--tls-client-ca")
    if auth:
        _there("auth.secretName", wanted.auth_tokens, "--auth-tokens")


def _there(field: str, file: str, options: str) -> None:
    if not Path(file).exists():
        fix = f"put the Secret's files there, or give {options}"
        raise UnsupportedError(f"spec.service.{field}", f"there is no {file}", fix)
