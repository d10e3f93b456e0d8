"""Is there text to measure quality on, and where is it missing?

Called by `profiling`, by `gathering` and by `scene`. It knows the spec and what `observe` read for it; which
set is measured on, `profiling` says.
"""

from __future__ import annotations

from helios_operator.decide.snapshot import Snapshot


def missing(snapshot: Snapshot) -> str:
    """What to put right; "" where prompts are given, or may come with the traffic."""
    source = snapshot.deployment.spec.profiling.prompts
    if snapshot.prompts or (source.live and source.live.consent):
        return ""
    ref = source.config_map_ref
    if ref is None:
        return "set profiling.prompts.live, configMapRef or inline"
    problem = f"ConfigMap {ref.name} does not exist, or holds no prompt under {ref.key}"
    return f"spec.profiling.prompts.configMapRef: {problem}"
