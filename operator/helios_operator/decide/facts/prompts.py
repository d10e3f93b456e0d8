"""Is there text to measure quality on, and where is it missing?

Called by `profiling`, `prompt_sets`, `gathering` and `scene`. It knows the spec and what `observe` read for
it; which set is measured on, `prompt_sets` says.
"""

from __future__ import annotations

from helios_operator.decide.snapshot import Snapshot


def missing(snapshot: Snapshot) -> str:
    """What to put right; "" where prompts are given, or may come with the traffic."""
    if snapshot.prompts or snapshot.deployment.spec.profiling.prompts.takes_live:
        return ""
    return absent(snapshot)


def absent(snapshot: Snapshot) -> str:
    """Of given prompts that are not there: in words, where they would be."""
    ref = snapshot.deployment.spec.profiling.prompts.config_map_ref
    if ref is None:
        return "set profiling.prompts.live, configMapRef or inline"
    problem = f"ConfigMap {ref.name} does not exist, or holds no prompt under {ref.key}"
    return f"spec.profiling.prompts.configMapRef: {problem}"
