"""A Secret or a ConfigMap that is not there is named by its field before anything is looked at, and heals."""

from __future__ import annotations

from typing import Any

import pytest
from helios_operator.cluster.kinds import CONFIG_MAP, REVISION, SECRET, Object
from helios_operator.decide.snapshot import JobKind, JobSpec

from tests.cluster.fake import results
from tests.cluster.fake.objects import NAMESPACE, PROMPTS, deployment, of
from tests.cluster.fake.scene import scene

TASKS = {"configMapRef": {"name": "mine", "key": "tasks.yaml"}}
SLO = {"minQualityPercent": 30, "minTaskPercent": 80}


def never_inspects(asked: JobSpec) -> str:
    return "" if asked.kind is JobKind.INSPECT else results.result(asked)


def server(**container: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "helios-server", **container}]}}}


def volume(**source: Any) -> dict[str, Any]:
    return {"template": {"spec": {"volumes": [{"name": "more", **source}]}}}


TLS = ("tls.crt", "tls.key")
ITEMS = [{"key": "a", "path": "b"}]
VARIABLE = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "more", "key": "a"}}}
CASES: list[tuple[dict[str, Any], str, str, tuple[str, ...]]] = [
    ({"service": {"tls": {"secretName": "more"}}}, "spec.service.tls.secretName", "Secret", TLS),
    ({"service": {"auth": {"secretName": "more"}}}, "spec.service.auth.secretName", "Secret", ("a",)),
    ({"authSecret": {"name": "more", "key": "a"}}, "spec.authSecret", "Secret", ("a",)),
    (
        server(env=[VARIABLE]),
        "spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef",
        "Secret",
        ("a",),
    ),
    (
        server(envFrom=[{"configMapRef": {"name": "more"}}]),
        "spec.template.spec.containers[0].envFrom[0].configMapRef",
        "ConfigMap",
        (),
    ),
    (volume(secret={"secretName": "more"}), "spec.template.spec.volumes[0].secret", "Secret", ()),
    (
        volume(projected={"sources": [{"configMap": {"name": "more", "items": ITEMS}}]}),
        "spec.template.spec.volumes[0].projected.sources[0].configMap",
        "ConfigMap",
        ("a",),
    ),
    (
        {"profiling": {"prompts": {"inline": PROMPTS}, **volume(configMap={"name": "more"})}},
        "spec.profiling.template.spec.volumes[0].configMap",
        "ConfigMap",
        (),
    ),
]  # fmt: skip


def made(kind: str, keys: tuple[str, ...]) -> Object:
    of_kind = {"Secret": SECRET, "ConfigMap": CONFIG_MAP}[kind]
    return of(of_kind, "more", data=dict.fromkeys(keys, "c2VjcmV0"))


@pytest.mark.parametrize(("spec", "field", "kind", "keys"), CASES, ids=[case[1] for case in CASES])
async def test_what_is_missing_is_named_before_anything_is_looked_at(
    spec: dict[str, Any], field: str, kind: str, keys: tuple[str, ...]
) -> None:
    async with scene() as place:
        place.kubelet.result = never_inspects
        place.create(deployment(**spec))
        told = await place.named("Ready", f"{field}: {kind} more does not exist")
        assert told["reason"] == "InvalidSpec"
        assert f"{field}: {kind} more" in place.condition("Available")["message"]
        assert place.store.list(REVISION) == []
        place.create(made(kind, keys))
        place.kubelet.result = results.result
        await place.ready()
        assert "c2VjcmV0" not in str(place.status())


async def test_a_key_that_is_missing_is_named_too() -> None:
    async with scene() as place:
        place.kubelet.result = never_inspects
        place.create(made("Secret", ("other",)))
        place.create(deployment(authSecret={"name": "more", "key": "a"}))
        await place.named("Ready", "spec.authSecret: Secret more holds no a; add what it lacks")


async def test_what_is_optional_is_not_missed() -> None:
    async with scene() as place:
        optional = {"configMap": {"name": "more", "optional": True}}
        place.create(deployment(**volume(**optional)))
        await place.ready()


async def test_what_goes_while_it_serves_is_no_news() -> None:
    """Pods that run have it, and a new one will say so itself."""
    async with scene() as place:
        place.create(made("Secret", ("a",)))
        place.create(deployment(authSecret={"name": "more", "key": "a"}))
        await place.ready()
        place.store.delete(SECRET, NAMESPACE, "more")
        place.relist()
        await place.passes()
        assert place.condition("Ready")["status"] == "True"


async def test_prompts_and_tasks_of_a_config_map_are_named_by_their_fields_at_once() -> None:
    async with scene() as place:
        place.kubelet.result = never_inspects
        prompts = {"configMapRef": {"name": "texts", "key": "all"}}
        place.create(deployment(slo=SLO, profiling={"prompts": prompts, "tasks": TASKS}))
        await place.named(
            "Profiled",
            "spec.profiling.prompts.configMapRef: ConfigMap texts does not exist",
            "spec.profiling.tasks.configMapRef: ConfigMap mine does not exist",
        )


async def test_tasks_alone_too_whatever_else_is_waited_for() -> None:
    async with scene() as place:
        place.kubelet.result = never_inspects
        place.create(deployment(slo=SLO, profiling={"prompts": {"inline": PROMPTS}, "tasks": TASKS}))
        told = await place.named(
            "Profiled", "spec.profiling.tasks.configMapRef: ConfigMap mine does not exist", "inspect i-"
        )
        assert told["reason"] == "NoTasks"
