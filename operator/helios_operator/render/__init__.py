"""A HeliosDeployment as the objects that a cluster runs: pure functions from typed values to manifests.

Called by the cluster's `apply`, one noun a module. A manifest is a plain dict, complete and ready for
server-side apply: without empty lists, which a server drops and so would write anew at every apply. Nothing
here reads a cluster, a clock or a file, decides what should run, or remembers anything.
"""

from typing import Any

Manifest = dict[str, Any]
"""One Kubernetes object, as its JSON."""
