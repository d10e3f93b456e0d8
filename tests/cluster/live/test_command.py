"""`helios status|why|…` and `kubectl helios …` against an API server: what they read and write, and what they
say when they cannot."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml
from helios_operator.api import annotations as by_hand
from helios_operator.api import parse
from helios_operator.cluster import events
from helios_operator.cluster.kinds import DEPLOYMENT, EVENT, Object

from tests.cli.command import HELIOS, Result, plugin
from tests.cli.test_views import STATUS
from tests.cluster.admin import ACCOUNT, as_account
from tests.cluster.live.scene import Measured, Scene, kubeconfig
from tests.tools import kubectl


async def run(command: list[str], environment: Mapping[str, str] | None = None) -> Result:
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False,
        env=os.environ | {"HELIOS_STATE": "/nonexistent"} | (environment or {}),
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


async def helios(*arguments: str, **environment: str) -> Result:
    return await run([*HELIOS, *arguments], environment)


async def written(place: Scene) -> Object:
    """A deployment with a status and an event, as an operator would have left it."""
    candidates = [{"name": name, "uri": f"pvc://models/{name}"} for name in ("smollm2", "wide")]
    made = await place.create(place.deployment(candidates=candidates))
    about = {key: made[key] for key in ("apiVersion", "kind")}
    metadata = {"name": "chat", "namespace": place.namespace}
    obj = await place.admin.apply(DEPLOYMENT, about | {"metadata": metadata, "status": STATUS}, "status")
    told = {events.ACTION: "Set limits of revision 1", events.NUMBERS: '{"tokensPerSecond": 182}'}
    message = "Set limits of revision 1: Grow to 27"
    said = events.event(parse.deployment(obj), events.NORMAL, "QualityMissed", message, told)
    await place.admin.create(EVENT, said)
    return obj


def words(printed: str) -> str:
    """However wide its columns are, and its lines."""
    return " ".join(printed.split())


async def test_what_is_read_and_written(place: Scene, tmp_path: Path) -> None:
    await written(place)
    here = ("-n", place.namespace)
    status = await helios("status", "chat", *here)
    assert "chat True smollm2 24 12 94 1/1 Serving" in words(status.out)
    everywhere = json.loads((await helios("status", "-A", "-o", "json")).out)
    assert (place.namespace, "chat") in {(each["namespace"], each["name"]) for each in everywhere}
    (line,) = json.loads((await helios("status", *here, "-o", "json")).out)
    assert (line["namespace"], line["running"], line["ready"]) == (place.namespace, True, "True")

    why = words((await helios("why", "chat", *here)).out)
    assert "chat serves smollm2 at 24 layers, 12 rows." in why
    assert "wide would gain 3 %, 10 % asked" in why
    assert "smollm2@24 smollm2@27 QualityMissed" in why
    assert "Set limits of revision 1: QualityMissed: Grow to 27 [tokensPerSecond=182]" in why
    assert (await helios("profiles", *here)).out == "No profiles yet.\n"

    reassess = await helios("reassess", "chat", *here)
    assert f"`helios why chat -n {place.namespace}`" in reassess.out
    assert (await helios("switch", "chat", "wide", *here)).code == 0
    asked = by_hand.newest_request((await place.get())["metadata"]["annotations"])
    assert asked is not None
    assert asked.switch_to == "wide"
    assert set((await place.get())["metadata"]["annotations"]) == {by_hand.REASSESS, by_hand.SWITCH_TO}
    nobody = await helios("switch", "chat", "nobody", *here)
    assert nobody.err == "error: candidate: chat has no 'nobody'; name one of smollm2, wide\n"
    assert "chat has not changed its candidate yet" in (await helios("rollback", "chat", *here)).err

    rollout = (await place.get())["spec"]["rollout"]
    assert (await helios("pause", "chat", *here)).code == 0
    assert (await place.get())["spec"]["rollout"] == rollout | {"paused": True}
    assert "generation 2 of 3" not in (await helios("status", "chat", *here)).out
    assert (await helios("pause", "chat", "--off", *here)).code == 0
    assert (await place.get())["spec"]["rollout"] == rollout | {"paused": False}
    fields = (await place.get())["metadata"]["managedFields"]
    assert "helios-cli" in {entry["manager"] for entry in fields}


async def test_what_is_missing_is_named(place: Scene, tmp_path: Path) -> None:
    await written(place)
    here = ("-n", place.namespace)
    absent = await helios("why", "other", *here)
    assert (absent.code, absent.out) == (2, "")
    problem = f"there is no HeliosDeployment 'other' in namespace {place.namespace} (there: chat)"
    assert absent.err == f"error: name: {problem}; name one, or give another --namespace\n"
    for verb in (("status",), ("status", "chat"), ("profiles",), ("reassess", "chat")):
        nowhere = await helios(*verb, "-n", "nowhere")
        assert nowhere.code == 2
        assert nowhere.err.startswith("error: namespace: there is no 'nowhere' on https://")
    await place.admin.delete(DEPLOYMENT, place.namespace, "chat")
    assert (await helios("status", *here)).out.startswith(
        f"No HeliosDeployments in namespace {place.namespace}"
    )


async def test_the_kubeconfigs_namespace_and_context(place: Scene, tmp_path: Path) -> None:
    await written(place)
    document = yaml.safe_load(kubeconfig().read_text())
    document["contexts"][0]["context"]["namespace"] = place.namespace
    document["contexts"][0]["name"] = "there"
    document["current-context"] = "gone"
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(document))
    chosen = ("--kubeconfig", str(config))
    assert "chat" in (await helios("status", "chat", *chosen, "--context", "there")).out
    assert (await helios("status", "chat", *chosen)).err.startswith(
        f"error: kubeconfig: {config} cannot be used"
    )
    assert (await helios("status", "chat", *chosen, "--context", "up")).err.startswith("error: context: 'up'")
    document["current-context"] = "there"
    config.write_text(yaml.safe_dump(document))
    assert "chat" in (await helios("status", "chat", KUBECONFIG=str(config))).out


async def test_who_may_not_is_told_what_to_ask_for(place: Scene, tmp_path: Path) -> None:
    await guest(place)
    token = await place.admin.token(place.namespace, "guest")
    config = as_account(kubeconfig(), token, tmp_path / "guest")
    for verb in (("status",), ("why", "chat"), ("pause", "chat")):
        refused = await helios(*verb, "-n", place.namespace, KUBECONFIG=str(config))
        assert refused.code == 2
        assert refused.err.startswith("error: rights: heliosdeployments.helios.dev ")
        assert f"system:serviceaccount:{place.namespace}:guest" in refused.err
    config = as_account(kubeconfig(), "wrong", tmp_path / "stranger")
    stranger = await helios("status", "-n", place.namespace, KUBECONFIG=str(config))
    assert stranger.err.startswith("error: credentials: ")


async def test_a_server_without_helios_is_told_apart(place: Scene, tmp_path: Path) -> None:
    proxy = place.proxy
    unknown = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"}
    proxy.answer = lambda _, path: (404, unknown) if path.startswith("/apis/helios.dev") else None
    await guest(place)
    token = await place.admin.token(place.namespace, "guest")
    config = as_account(kubeconfig(), token, tmp_path / "guest", proxy.address)
    for verb in (("status",), ("why", "chat"), ("profiles", "-A"), ("pause", "chat")):
        told = await helios(*verb, KUBECONFIG=str(config))
        expected = (
            f"error: cluster: {proxy.address} has no CRD for HeliosDeployments; install HELIOS there: see"
        )
        assert told.err.startswith(expected), verb


async def guest(place: Scene) -> None:
    """An account without a right."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    await place.admin.apply(ACCOUNT, account | {"metadata": {"name": "guest", "namespace": place.namespace}})


async def test_kubectl_helios_switches(place: Scene, measured: Measured, tmp_path: Path) -> None:
    """The loop by hand, through the real kubectl and a real operator."""
    path = {"PATH": f"{plugin(tmp_path)}:{os.environ['PATH']}"}

    async def ask(*arguments: str) -> str:
        done = await run([str(kubectl()), "helios", *arguments, "-n", place.namespace], path)
        assert (done.code, done.err) == (0, ""), done
        return done.out

    await place.start_operator()
    await place.create(place.deployment(), measured)
    active = (await place.ready())["status"]["active"]
    served = active["candidate"]
    other = {"deep": "flat", "flat": "deep"}[served]
    assert f"`kubectl helios why chat -n {place.namespace}`" in await ask("switch", "chat", other)
    await place.until(lambda s: s["active"]["candidate"] == other, what="no switch")
    await place.ready()
    why = await ask("why", "chat")
    assert f"chat serves {other} at " in why
    assert f"Create revision {active['revision'] + 1}: {other}" in why
    rows = json.loads(await ask("profiles", "chat", "-o", "json"))
    assert len(rows) == 4
    assert {row["namespace"] for row in rows} == {place.namespace}
    await ask("rollback", "chat")
    await place.until(lambda s: s["active"]["candidate"] == served, what="no way back")
