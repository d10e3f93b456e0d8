"""Which cluster, as whom: a kubeconfig, or in a pod its service account.

Called by `client`, and by the command to ask whether there is a cluster at all; the Kubernetes library is
imported only to load one. It speaks to nobody.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from helios_operator.errors import KubeconfigError

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

_IN_POD = "KUBERNETES_SERVICE_HOST"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAMESPACE = "default"
_STUMBLES = (AttributeError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError)
"""How the library falls over a file that is no kubeconfig."""


def files() -> str:
    """As kubectl finds them: several are separated as in PATH."""
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def is_there() -> bool:
    """Without looking into it."""
    return _IN_POD in os.environ or _exists(files())


async def load(configuration: Configuration, file: str | None = None, context: str | None = None) -> str:
    """Fills the configuration; returns the namespace that it names. Without arguments: as a pod's account in
    a pod, unless KUBECONFIG is set."""
    from kubernetes.aio import config

    if not (file or context) and _IN_POD in os.environ and "KUBECONFIG" not in os.environ:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else _NAMESPACE
    where = file or files()
    if not _exists(where):
        fix = "give one with --kubeconfig or KUBECONFIG"
        raise KubeconfigError("kubeconfig", f"there is no file {where}", fix)
    try:
        loading = config.load_kube_config(where, context, client_configuration=configuration)  # type: ignore[no-untyped-call]
        loader = await loading
    except (config.ConfigException, *_STUMBLES) as error:
        raise _unusable(where, context, str(error)) from None
    return str(loader.current_context["context"].get("namespace") or _NAMESPACE)


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _unusable(where: str, context: str | None, why: str) -> KubeconfigError:
    if context and context in why:
        problem = f"{context!r} is not in {where}"
        return KubeconfigError("context", problem, "`kubectl config get-contexts` lists those that are")
    problem = f"{where} cannot be used ({' '.join(why.split())})"
    return KubeconfigError("kubeconfig", problem, "see that `kubectl config view --minify` shows a cluster")
