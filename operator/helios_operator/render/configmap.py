"""The ConfigMaps: a revision's limits document, and the spec's inline prompts and tasks.

Called by `apply`: the limits before the revision's Deployment, and again with every WriteLimits before the
pods are told, so that a restarted pod comes back as what it was told.
"""

from __future__ import annotations

from helios_contract import limits as document
from helios_contract.limits import Limits

from helios_operator.api import inline_prompts, inline_tasks
from helios_operator.api.types import Deployment
from helios_operator.control import limits as limits_documents
from helios_operator.render import Manifest, labels, names, owner

LIMITS_KEY = "limits.json"
PROMPTS_KEY = "prompts.json"
TASKS_KEY = "tasks.json"


def limits_config_map(hd: Deployment, number: int, limits: Limits, tasks: str = "") -> Manifest:
    """`tasks`: the text of those that the limits ask for; pods find it beside the document."""
    name = names.revision(hd.name, number)
    data = {LIMITS_KEY: document.to_json(limits)} | ({TASKS_KEY: tasks} if limits.task_probe else {})
    return _config_map(owner.metadata(hd, name, labels.revision(hd.name, number)), data)


def limits_of(config_map: Manifest) -> Limits:
    """What a revision's ConfigMap says. StateError when it is not a limits document."""
    name = f"configmap/{config_map['metadata']['name']}"
    return limits_documents.read((config_map.get("data") or {}).get(LIMITS_KEY, ""), name)


def prompts_config_map(hd: Deployment) -> Manifest:
    """For Jobs; live prompts never come here, they stay in the pods' memory."""
    data = {PROMPTS_KEY: inline_prompts.document(hd.spec.profiling.prompts.inline)}
    return _config_map(owner.metadata(hd, names.prompts(hd.name)), data)


def tasks_config_map(hd: Deployment) -> Manifest:
    """Inline ones; those of the user's own ConfigMap are mounted from there."""
    source = hd.spec.profiling.tasks
    data = {TASKS_KEY: inline_tasks.document(source.inline if source else ())}
    return _config_map(owner.metadata(hd, names.tasks(hd.name)), data)


def _config_map(metadata: Manifest, data: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
