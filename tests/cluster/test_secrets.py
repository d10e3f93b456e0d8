"""The Secrets that a spec names: none is done without, what is missing is named and heals."""

from __future__ import annotations

from typing import Any

import pytest
from helios_operator.cluster.kinds import REVISION, SECRET, SERVICE

from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.scene import Place, scene


def secret(name: str, *keys: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": dict.fromkeys(keys, "c2VjcmV0"),
    }


def protocols(place: Place) -> set[str]:
    return {port["appProtocol"] for port in place.get(SERVICE, "chat")["spec"]["ports"]}


@pytest.mark.parametrize(
    ("service", "there", "named", "lacking"),
    [
        (
            {"tls": {"secretName": "cert"}},
            None,
            "tls.secretName: Secret cert does not exist",
            ("tls.crt", "tls.key"),
        ),
        (
            {"tls": {"secretName": "cert"}},
            secret("cert", "tls.crt"),
            "tls.secretName: Secret cert holds no tls.key",
            ("tls.key",),
        ),
        (
            {"auth": {"secretName": "callers"}},
            secret("callers"),
            "auth.secretName: Secret callers is empty",
            ("a",),
        ),
    ],
)
async def test_pods_wait_for_a_secret_that_is_named(
    service: dict[str, Any], there: dict[str, Any] | None, named: str, lacking: tuple[str, ...]
) -> None:
    async with scene() as place:
        name = named.partition("Secret ")[2].partition(" ")[0]
        if there:
            place.create(there)
        place.create(deployment(service=service))
        told = await place.named("Ready", f"spec.service.{named}")
        assert told["reason"] == "InvalidSpec"
        assert place.store.list(REVISION) == []
        whole = secret(name, *lacking)["data"]
        if there:
            place.store.merge(SECRET, NAMESPACE, name, {"data": whole}, "somebody")
        else:
            place.create(secret(name, *lacking))
        await place.ready()
        assert "c2VjcmV0" not in str(place.status())
        assert protocols(place) == ({"https"} if "tls" in service else {"kubernetes.io/h2c", "http"})


async def test_the_control_ports_token_is_no_callers() -> None:
    async with scene() as place:
        place.create(deployment(service={"auth": {"secretName": "chat-control"}}))
        await place.named(
            "Ready", "spec.service.auth.secretName: Secret chat-control is the Control port's own"
        )


async def test_tls_brings_new_pods_and_the_service_follows_them() -> None:
    async with scene() as place:
        place.create(deployment())
        await place.ready()
        place.create(secret("cert", "tls.crt", "tls.key"))
        place.patch(service={"tls": {"secretName": "cert"}})
        await place.until(lambda: place.routed() == 2, "no new pods")
        await place.until(lambda: protocols(place) == {"https"}, "the Service says otherwise")
