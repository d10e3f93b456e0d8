"""The containers of a pod template, found by name.

Used by the modules of `render` and by whoever reads a template back. It changes nothing in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helios_operator.api.pod_template import PROFILE, SERVER

__all__ = ["PROFILE", "SERVER", "named"]


def named(template: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The container of that name, empty when the template has none."""
    listed = (template.get("spec") or {}).get("containers") or ()
    return next((container for container in listed if container.get("name") == name), {})
