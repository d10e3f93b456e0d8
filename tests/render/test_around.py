"""What stands around the pods: Services, ConfigMap, Secret, NetworkPolicies."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from helios_operator.errors import OperatorError
from helios_operator.render import Manifest, configmap, labels
from helios_operator.render.networkpolicy import job_policy, server_policy
from helios_operator.render.secret import control_token_secret, token_of
from helios_operator.render.service import (
    client_service,
    endpoint,
    pods_service,
    replicas_service,
    routed_revision,
    serves_http,
    serves_tls,
)
from helios_proto.v1 import control_pb2

from tests.render import objects


def test_clients_reach_the_routed_revision_and_no_other() -> None:
    hd = objects.deployment()
    pods = {number: objects.revision(hd, number=number)["spec"]["template"] for number in (6, 7)}
    service = client_service(hd, 7)
    assert _selects(service, pods[7])
    assert not _selects(service, pods[6])
    assert routed_revision(service) == 7


def test_the_address_exists_before_anything_serves() -> None:
    service = client_service(objects.deployment(), None)
    assert service["metadata"]["name"] == "chat"
    assert routed_revision(service) is None
    assert not _selects(service, objects.revision(objects.deployment(), number=1)["spec"]["template"])


@pytest.mark.parametrize(
    ("service", "port"), [({}, 8000), ({"httpPort": 80}, 80), ({"httpPort": 0}, None), ({"port": 8000}, None)]
)
def test_openais_api_has_a_port_of_the_users(service: dict[str, int], port: int | None) -> None:
    hd = objects.deployment(service=service)
    listed = {each["name"]: each for each in client_service(hd, 1)["spec"]["ports"]}
    assert set(listed) == ({"grpc", "http"} if port else {"grpc"})
    if port:
        assert listed["http"] == {
            "name": "http",
            "port": port,
            "targetPort": 8000,
            "protocol": "TCP",
            "appProtocol": "http",
        }
        assert serves_http(objects.revision(hd)["spec"]["template"])
    assert "http" not in {each["name"] for each in client_service(hd, 1, with_http=False)["spec"]["ports"]}


def test_the_service_says_what_the_pods_behind_it_speak() -> None:
    plain, encrypted = objects.deployment(), objects.deployment(service={"tls": {"secretName": "t"}})
    assert not serves_tls(objects.revision(plain)["spec"]["template"])
    assert serves_tls(objects.revision(encrypted)["spec"]["template"])
    assert not serves_tls({})
    for with_tls, spoken in ((False, {"kubernetes.io/h2c", "http"}), (True, {"https"})):
        service = client_service(encrypted, 1, with_tls=with_tls)
        assert {port["appProtocol"] for port in service["spec"]["ports"]} == spoken
        (port,) = replicas_service(encrypted, 1, with_tls=with_tls)["spec"]["ports"]
        assert port["appProtocol"] in spoken
    control = {port["name"]: port["appProtocol"] for port in pods_service(encrypted)["spec"]["ports"]}
    assert control == {"grpc": "https", "control": "kubernetes.io/h2c", "metrics": "http"}


def test_pods_of_the_release_before_have_no_such_port() -> None:
    template = objects.revision(objects.deployment(service={"httpPort": 0}))["spec"]["template"]
    assert not serves_http(template)
    assert not serves_http({})


def test_the_port_is_the_users_and_speaks_http2() -> None:
    hd = objects.deployment(service={"port": 9000})
    port, _ = client_service(hd, 1)["spec"]["ports"]
    assert (port["port"], port["targetPort"], port["appProtocol"]) == (9000, "grpc", "kubernetes.io/h2c")
    assert endpoint(hd) == "chat.team-a.svc:9000"


def test_the_clients_headless_service_lists_the_ready_pods_of_the_routed_revision() -> None:
    hd = objects.deployment(service={"port": 9000})
    pods = {number: objects.revision(hd, number=number)["spec"]["template"] for number in (6, 7)}
    service = replicas_service(hd, 7)
    assert service["metadata"]["name"] == "chat-replicas"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is False
    assert (_selects(service, pods[6]), _selects(service, pods[7])) == (False, True)
    assert not _selects(replicas_service(hd, None), pods[7])
    (port,) = service["spec"]["ports"]
    assert port["port"] == 8033  # nothing maps it to another


def test_the_headless_service_finds_every_pod_ready_or_not() -> None:
    hd = objects.deployment()
    service = pods_service(hd)
    assert service["metadata"]["name"] == "chat-pods"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert all(
        _selects(service, objects.revision(hd, number=number)["spec"]["template"]) for number in (6, 7)
    )


def test_the_limits_document_is_what_a_pod_parses_and_is_read_back() -> None:
    limits = objects.serving_limits()
    config_map = configmap.limits_config_map(objects.deployment(), 7, limits)
    message = json_format.Parse(config_map["data"]["limits.json"], control_pb2.Limits())
    assert (message.layer_budget, message.max_batch_size, message.generation) == (24, 12, 4)
    assert configmap.limits_of(config_map) == limits


def test_a_damaged_limits_document_is_named() -> None:
    config_map = configmap.limits_config_map(objects.deployment(), 7, objects.serving_limits())
    config_map["data"] = {"limits.json": "{"}
    with pytest.raises(OperatorError, match="configmap/chat-7"):
        configmap.limits_of(config_map)


def test_inline_prompts_are_carried_whole() -> None:
    hd = objects.deployment(profiling={"prompts": {"inline": ["Größe\n", "x"]}})
    assert json.loads(configmap.prompts_config_map(hd)["data"]["prompts.json"]) == ["Größe\n", "x"]


def test_the_control_token_is_read_back() -> None:
    secret = control_token_secret(objects.deployment(), "tøken")
    assert token_of(secret) == "tøken"


def test_the_control_port_is_the_operators_and_the_jobs() -> None:
    policy = server_policy(objects.deployment(), objects.installation())
    peers = _peers(policy, 8034)
    assert peers == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "helios-system"}},
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/name": "helios-operator",
                    "app.kubernetes.io/instance": "helios",
                }
            },
        },
        {"podSelector": {"matchLabels": labels.profiling("chat")}},
    ]


def test_clients_and_scrapers_come_from_everywhere_unless_namespaces_are_named() -> None:
    hd = objects.deployment()
    open_policy = server_policy(hd, objects.installation())
    assert _peers(open_policy, 8033) is None
    assert _peers(open_policy, 8000) is None
    assert _peers(open_policy, 8035) is None
    by = objects.installation(client_namespaces=("apps", "web"), metrics_namespaces=("monitoring",))
    policy = server_policy(hd, by)
    assert len(_peers(policy, 8033) or ()) == 2
    assert _peers(policy, 8000) == _peers(policy, 8033)
    assert len(_peers(policy, 8035) or ()) == 1


def test_a_port_that_is_not_served_is_open_to_nobody() -> None:
    policy = server_policy(objects.deployment(service={"httpPort": 0}), objects.installation())
    assert 8000 not in {rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]}


def test_nobody_speaks_to_a_job() -> None:
    policy = job_policy(objects.deployment())
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy["spec"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels.profiling("chat")


def _selects(selecting: Manifest, template: Manifest) -> bool:
    return bool(selecting["spec"]["selector"].items() <= template["metadata"]["labels"].items())


def _peers(policy: Manifest, port: int) -> list[Manifest] | None:
    (rule,) = (rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == port)
    return rule.get("from")
