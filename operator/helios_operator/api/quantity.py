"""Kubernetes' grammar of quantities ("500m", "16Gi", "1e3"): what an API server takes for one.

Used by `api.pod_template`, which refuses what is none, and by the cluster's `quantities`, which reads their
numbers. It must not compute: the Kubernetes client does.
"""

from __future__ import annotations

import math
import re

_QUANTITY = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?")


def is_quantity(value: object) -> bool:
    """A string of the grammar, or a finite number."""
    if isinstance(value, str):
        return _QUANTITY.fullmatch(value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
