"""The whole loop on one machine: what a second run, a switch, a crash and a wrong file come to."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from helios_operator.api.problems import Invalid
from helios_operator.errors import AddressInUseError, OperatorError, StateLockedError
from helios_operator.local import lock
from helios_operator.local.runtime import LocalRuntime
from helios_proto.client import GenerationClient

from tests.documentation.blocks import Block
from tests.local.world import (
    AS_PUBLISHED,
    MEMORY_MIB,
    PATIENCE,
    PROMPTS,
    active,
    ask,
    deployment,
    follow_offline,
    is_ready,
    options,
    other_than,
    settled_on,
    started_jobs,
    switch_to,
    traffic,
    under_way_at_the_change,
)
from tests.sizes import LONG


def begun(state: Path) -> bool:
    """Whether the folder tells of the run that holds it."""
    held = lock.holder(state)
    assert held is not None
    return held.begun


async def test_a_second_run_measures_nothing_and_serves_what_the_first_chose(
    state: Path, volumes: Path
) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        assert not begun(state)  # what the first run left says that it is ready
        chosen = active(runtime)
        jobs = started_jobs(runtime)
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        assert begun(state)
        async with GenerationClient(runtime.front_address("chat")) as client:
            (span,) = (await ask(client)).spans
        assert (span["candidate"], span["depth"]) == (chosen["candidate"], chosen["layerBudget"])
        assert started_jobs(runtime) == jobs
        assert runtime.deployment("chat")["metadata"]["generation"] == 1
        endpoint = runtime.deployment("chat")["status"]["endpoint"]
        assert endpoint == runtime.front_address("chat")


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: an example of docs/local.md")
async def test_the_example_from_python(
    documented: list[Block], state: Path, volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = documented
    example = block.text.replace("port=0", 'device="cpu", dtype="float32", port=0', 1)
    names: dict[str, Any] = {"objects": [deployment()], "state_folder": state, "volumes": volumes}
    exec("\n".join(["async def run():", *(f"    {line}" for line in example.splitlines())]), names)
    await names["run"]()
    assert "'layerBudget': " in capsys.readouterr().out


async def test_a_switch_by_surge_loses_no_stream(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        before = active(runtime)["candidate"]
        after = other_than(before)
        old_pod = set(runtime.pids("chat").values())
        async with traffic(runtime.front_address("chat"), tokens=200) as answered:
            switch_to(runtime, after)
            await runtime.wait_for(settled_on(after), timeout=PATIENCE)
        assert {len(stream.spans) for stream in answered} == {1}  # the old pod finished what it had begun
        assert under_way_at_the_change(answered, before, after)
        follow_offline(answered, volumes)
        assert not old_pod & set(runtime.pids("chat").values())
        entry = runtime.deployment("chat")["status"]["history"][-1]
        assert (entry["kind"], entry["to"]["candidate"], entry["result"]) == ("Switch", after, "Promoted")
        assert runtime.deployment("chat")["status"]["rollout"]["strategy"] == "Surge"


async def test_a_switch_in_place_when_memory_holds_one_pod(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes, memory_mib=MEMORY_MIB)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        before = active(runtime)["candidate"]
        after = other_than(before)
        pod = runtime.pids("chat")
        async with traffic(runtime.front_address("chat"), tokens=200) as answered:
            switch_to(runtime, after)
            await runtime.wait_for(settled_on(after), timeout=PATIENCE)
        moved = [stream for stream in answered if len(stream.spans) == 2]
        assert moved  # the new model went on with what the old one had begun
        assert (answered[0].candidate, answered[-1].candidate) == (before, after)
        follow_offline(answered, volumes)
        assert runtime.pids("chat") == pod  # the same process, another model
        assert runtime.deployment("chat")["status"]["rollout"]["strategy"] == "InPlace"


async def test_a_killed_pod_is_started_again_with_what_was_chosen(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        chosen = active(runtime)
        ((name, pid),) = runtime.pids("chat").items()
        os.kill(pid, signal.SIGKILL)
        await runtime.wait_for(lambda r: r.pids("chat").get(name) not in (None, pid), timeout=PATIENCE)
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        async with GenerationClient(runtime.front_address("chat")) as client:
            (span,) = (await ask(client)).spans
        assert span["depth"] == chosen["layerBudget"]
        reasons = [record.reason for record in runtime.events("chat") if record.source == "pod"]
        assert "BackOff" in reasons


async def test_a_change_of_the_spec_by_hand_is_admitted_first(state: Path, volumes: Path) -> None:
    async with LocalRuntime([deployment()], state, options(volumes)) as runtime:
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        with pytest.raises(Invalid, match=r"spec\.slo\.percentile"):
            runtime.patch("chat", ("slo", "percentile"), 200)
        runtime.patch("chat", ("rollout", "paused"), True)
        switch_to(runtime, other_than(active(runtime)["candidate"]))
        generation = runtime.deployment("chat")["metadata"]["generation"]
        assert generation == 2
        await runtime.wait_for(
            lambda r: r.deployment("chat")["status"]["observedGeneration"] == generation, timeout=PATIENCE
        )
        assert len(runtime.pids("chat")) == 1


async def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path, volumes: Path) -> None:
    def runtime(obj: dict[str, Any], **changes: Any) -> LocalRuntime:
        return LocalRuntime([obj], tmp_path / "state", options(volumes, **changes))

    with pytest.raises(Invalid, match=r"selection\.candidate"):
        async with runtime(deployment(selection={"policy": "Pinned", "candidate": "nobody"})):
            pytest.fail("an unknown candidate was served")
    with pytest.raises(OperatorError, match="holds no HeliosDeployment"):
        async with LocalRuntime([], tmp_path / "state", options(volumes)):
            pytest.fail("nothing was served")
    async with runtime(deployment(replicas=0)) as running:
        port = int(running.front_address("chat").split(":")[1])
        with pytest.raises(StateLockedError, match=str(os.getpid())):
            async with runtime(deployment()):
                pytest.fail("two runtimes share a folder")
        with pytest.raises(AddressInUseError, match=str(port)):
            async with LocalRuntime([deployment()], tmp_path / "other", options(volumes, port=port)):
                pytest.fail("two runtimes share a port")
    assert not (tmp_path / "state" / "admin.json").exists()


async def test_models_and_prompts_may_come_from_other_documents(state: Path, volumes: Path) -> None:
    """A catalogue and a ConfigMap that say the same as the first run's file: nothing is measured again."""
    catalogue = [
        {
            "apiVersion": "helios.dev/v1alpha1",
            "kind": "HeliosModel",
            "metadata": {"name": name, "labels": {"size": "tiny"}},
            "spec": {"uri": f"pvc://models/{name}", "exitLayers": [2], **AS_PUBLISHED},
        }
        for name in ("deep", "flat")
    ]
    texts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "texts"},
        "data": {"prompts": json.dumps(PROMPTS)},
    }
    selecting = deployment(
        candidateSelector={"matchLabels": {"size": "tiny"}},
        profiling={"prompts": {"configMapRef": {"name": "texts", "key": "prompts"}}},
    )
    del selecting["spec"]["candidates"]
    async with LocalRuntime([*catalogue, texts, selecting], state, options(volumes)) as runtime:
        jobs = started_jobs(runtime)
        await runtime.wait_for(is_ready, timeout=PATIENCE)
        await runtime.wait_for(lambda r: r.condition("chat", "Profiled") == "True", timeout=PATIENCE)
        measured = [job for job in started_jobs(runtime)[len(jobs) :] if not job.startswith("Inspect")]
        assert measured == []
        for name in ("deep", "flat"):
            status = runtime.model(name)["status"]
            (resolved,) = status["conditions"]
            assert (resolved["type"], resolved["status"]) == ("Resolved", "True")
            assert status["correctedBy"] in [profile["metadata"]["name"] for profile in runtime.profiles()]


async def test_deployments_share_a_machine_and_what_was_measured(state: Path, volumes: Path) -> None:
    other = deployment(modelName="other")
    other["metadata"] = {"name": "other"}
    async with LocalRuntime([deployment(), other], state, options(volumes)) as runtime:
        await runtime.wait_for(
            lambda r: all(r.condition(name, "Ready") == "True" for name in ("chat", "other")),
            timeout=PATIENCE,
        )
        assert runtime.front_address("chat") != runtime.front_address("other")
        jobs = [record.message for record in runtime.events("other") if record.source == "job"]
        assert all(job.startswith("Inspect") for job in jobs)
        owners = [[o["name"] for o in p["metadata"]["ownerReferences"]] for p in runtime.profiles()]
        assert ["chat", "other"] in owners
