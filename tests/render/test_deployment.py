"""A revision's Deployment: what its pods are told, what of the user's template reaches them, and what never
does."""

from __future__ import annotations

from typing import Any

import pytest
from helios_contract.limits import Audit
from helios_contract.serves import Bundle
from helios_operator.api.types import Candidate
from helios_operator.render import Manifest, containers, labels, volumes

from tests.render import objects


def _pod(**spec: Any) -> Manifest:
    return objects.revision(objects.deployment(**spec))["spec"]["template"]["spec"]


def _server(**spec: Any) -> Manifest:
    return dict(containers.named({"spec": _pod(**spec)}, containers.SERVER))


def _option(container: Manifest, name: str) -> str:
    command = container["command"]
    return str(command[command.index(name) + 1])


def _environment(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_the_limits_are_read_from_the_revisions_config_map_and_stand_nowhere_in_the_template() -> None:
    hd = objects.deployment()
    template = objects.revision(hd)["spec"]["template"]
    other = objects.serving_limits(
        generation=9, layer_budget=30, max_batch_size=3, exits_uri="", audit=Audit(percent=50)
    )
    assert objects.revision(hd, limits=other)["spec"]["template"] == template
    mounted = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert mounted["limits"]["configMap"]["name"] == "chat-7"
    assert _option(_server(), "--limits") == "/etc/helios/limits/limits.json"


def test_the_volumes_of_all_candidates_are_mounted_read_only() -> None:
    candidates = (
        Candidate("a", "pvc://models/a", exits="pvc://heads/a"),
        Candidate("b", "pvc://models/b"),
        Candidate("c", "hf://org/c"),
    )
    limits = objects.serving_limits(
        model_uri="pvc://old/m", audit=Audit(bundles=(Bundle("x", "pvc://audited/x", "sha256:2"),))
    )
    manifest = objects.revision(objects.deployment(), candidates=candidates, limits=limits)
    pod = manifest["spec"]["template"]["spec"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if volume.get("persistentVolumeClaim", {}).get("readOnly")
    }
    assert claims == {"models", "heads", "old", "audited"}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert all(mounts[f"/volumes/{claim}"]["readOnly"] for claim in claims)
    assert volumes.unreached(limits, manifest["spec"]["template"]) == ()


def test_what_no_mount_of_a_running_revision_reaches_is_named() -> None:
    template = objects.revision(objects.deployment())["spec"]["template"]
    limits = objects.serving_limits(
        model_uri="pvc://models/another",
        exits_uri="pvc://heads/x",
        audit=Audit(bundles=(Bundle("y", "hf://o/y", ""),)),
    )
    assert volumes.unreached(limits, template) == ("pvc://heads/x",)


def test_a_model_cache_sets_where_models_come_from() -> None:
    read_only = {"pvcName": "models", "mountPath": "/cache", "readOnly": True}
    environment = _environment(_server(modelCache=read_only))
    assert environment["HF_HOME"] == "/cache"
    assert environment["HF_HUB_OFFLINE"] == "1"
    writable = read_only | {"readOnly": False}
    assert "HF_HUB_OFFLINE" not in _environment(_server(modelCache=writable))
    assert "HF_HUB_OFFLINE" not in _environment(_server())


def test_a_claim_that_is_cache_and_candidate_is_one_volume_with_two_mounts() -> None:
    pod = _pod(modelCache={"pvcName": "models", "mountPath": "/cache", "readOnly": False})
    sources = [each["persistentVolumeClaim"] for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert sources == [{"claimName": "models"}]
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/cache"] is False
    assert mounts["/volumes/models"] is True


def test_the_hub_token_comes_from_the_users_secret() -> None:
    environment = _environment(_server(authSecret={"name": "hf", "key": "TOKEN"}))
    assert environment["HF_TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "TOKEN"}}


@pytest.mark.parametrize(("pre_stop", "timeout"), [(15, 300), (0, 60)])
def test_the_grace_period_covers_the_wait_the_drain_and_the_exit(pre_stop: int, timeout: int) -> None:
    pod = _pod(rollout={"drain": {"preStopSeconds": pre_stop, "timeoutSeconds": timeout}})
    assert pod["terminationGracePeriodSeconds"] == pre_stop + timeout + 10
    server = pod["containers"][0]
    assert _option(server, "--drain-timeout") == str(timeout)
    assert ("lifecycle" in server) == (pre_stop > 0)


def test_probes_are_http_and_give_a_start_its_whole_deadline() -> None:
    server = _server(rollout={"progressDeadlineSeconds": 600})
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert set(server[probe]) == {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert server["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert server["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_the_users_template_is_merged_onto_the_server() -> None:
    pod = _pod(template=objects.GPU_TEMPLATE)
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert [each["name"] for each in pod["containers"]] == ["helios-server", "sidecar"]
    server = pod["containers"][0]
    assert server["image"] == "registry.internal/helios-server:cuda"
    assert server["args"] == ["--energy-watts", "72"]
    assert server["resources"] == {"limits": {"nvidia.com/gpu": 1, "memory": "20Gi"}}
    assert server["readinessProbe"]
    environment = _environment(server)
    assert environment["MINE"] == "1"
    assert environment["HF_HOME"] == "/elsewhere"
    metadata = objects.revision(objects.deployment(template=objects.GPU_TEMPLATE))["spec"]["template"][
        "metadata"
    ]
    assert metadata["labels"]["team"] == "a"
    assert metadata["annotations"]["note"] == "mine"


def test_a_template_cannot_take_the_pods_from_their_selector() -> None:
    template = {
        "metadata": {"labels": {labels.REVISION: "1", labels.COMPONENT: "x"}},
        "spec": {"restartPolicy": "Never"},
    }
    manifest = objects.revision(objects.deployment(template=template))
    selector = manifest["spec"]["selector"]["matchLabels"]
    assert selector.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()
    assert manifest["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_the_device_follows_the_accelerator_that_the_pod_asks_for() -> None:
    assert _option(_server(template=objects.GPU_TEMPLATE), "--device") == "cuda"
    assert _option(_server(), "--device") == "cpu"
    unknown = {
        "spec": {"containers": [{"name": "helios-server", "resources": {"limits": {"example.com/gpu": "1"}}}]}
    }
    assert _option(_server(template=unknown), "--device") == "cpu"


def test_memory_is_requested_for_the_scheduler_unless_the_user_or_the_accelerator_says() -> None:
    assert _server()["resources"] == {"requests": {"memory": "800Mi"}}
    cpu_only = {"spec": {"containers": [{"name": "helios-server", "resources": {"limits": {"cpu": "2"}}}]}}
    assert _server(template=cpu_only)["resources"] == {
        "limits": {"cpu": "2"},
        "requests": {"memory": "800Mi"},
    }
    gpu = {
        "spec": {"containers": [{"name": "helios-server", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    }
    assert "requests" not in _server(template=gpu)["resources"]


def test_what_a_user_writes_is_not_expanded_by_the_kubelet() -> None:
    assert _option(_server(modelName="$(HOME)"), "--model-name") == "$$(HOME)"


def test_the_default_image_is_the_installations_and_changes_no_hash() -> None:
    hd = objects.deployment()
    old = objects.revision(hd, by=objects.installation(server_image="helios-server:1"))
    new = objects.revision(hd, by=objects.installation(server_image="helios-server:2"))
    assert new["spec"]["template"]["spec"]["containers"][0]["image"] == "helios-server:2"
    annotation = labels.TEMPLATE_HASH
    assert old["metadata"]["annotations"][annotation] == new["metadata"]["annotations"][annotation]
