"""What is decided about SmolLM2, on profiles that this machine takes of it: two backbones, a bundle of heads
and one of noise, measured once by the loop itself; `helios plan` then weighs them, with recorded times of a
step and sizes of its memory, under one SLO after another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli.main import main
from helios_operator.local.runtime import LocalRuntime, Options
from helios_server.exits.data import prompts
from helios_server.models.store import drop_layers, ensure_smollm2

from tests.local.world import AS_PUBLISHED, brief_jobs
from tests.profile.planted import noise_bundle
from tests.sizes import LONG

SHORTER = (13, 14, 17, 25)
"""Layers that the second backbone does without."""
PATIENCE = 400
TIMING = {
    "fit": {
        "stepNs": 0,
        "perLayerNs": 1_084_723,
        "perLayerRowNs": 43_205,
        "perLayerKvTokenNs": 134,
        "errorPercent": 6,
        "head": {
            "bare": {"baseNs": 2_646_213, "perRowNs": 536_336},
            "mlp": {"baseNs": 3_134_946, "perRowNs": 578_161},
        },
    },
    "memory": {
        "processStartBytes": 162_000_000,
        "fixedBytes": 159_698_182,
        "layerBytes": 11_237_265,
        "kvBytesPerTokenLayer": 1539,
        "activationBytesPerToken": 271_360,
        "rowBytes": 196_608,
        "stepTokens": 128,
        "pageTokens": 16,
    },
    "exitBytes": {"bare": 0, "mlp": 15_367_168},
    "auditBytes": 44_450_816,
}
"""Of the steps and the memory, as Timing Jobs on two cores found it."""

Spec = dict[str, Any]


def candidates(volumes: Path) -> dict[str, Spec]:
    """By name, and with the folders that they stand for."""
    models = volumes / "models"
    models.mkdir(parents=True)
    real = ensure_smollm2()
    (models / "smollm2").symlink_to(real)
    (models / "shorter").symlink_to(drop_layers(real, real.with_name(real.name + "-26"), SHORTER))
    noise_bundle(models / "noise", real, (24, 27))
    uri = "pvc://models/smollm2"
    return {
        "general": {"name": "general", "uri": uri, "exits": "builtin://general", **AS_PUBLISHED},
        "noise": {"name": "noise", "uri": uri, "exits": "pvc://models/noise", **AS_PUBLISHED},
        "shorter": {"name": "shorter", "uri": "pvc://models/shorter", **AS_PUBLISHED},
    }


def deployment(competing: list[Spec], slo: Spec, memory_mib: int = 900) -> Spec:
    return {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": "HeliosDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "candidates": competing,
            "slo": slo,
            "workload": {"isl": 96, "osl": 48},
            "limits": {"memoryMiB": memory_mib},
            "profiling": {"prompts": {"inline": prompts("prose", 16, seed=3)}},
        },
    }


class Desk:
    """Where one asks what would be chosen."""

    def __init__(self, root: Path, known: dict[str, Spec], capsys: pytest.CaptureFixture[str]) -> None:
        self._root = root
        self._known = known
        self._capsys = capsys

    def plan(self, slo: Spec, names: str = "general noise shorter", memory_mib: int = 900) -> Spec:
        """What `helios plan` prints of candidates in that order; `name=other` gives one another name."""
        competing = []
        for name in names.split():
            own, _, other = name.partition("=")
            competing.append(self._known[own] | {"name": other or own})
        file = self._root / "plan.yaml"
        file.write_text(yaml.safe_dump(deployment(competing, slo, memory_mib)))
        state, volumes = self._root / "state", self._root / "volumes"
        where = ["--profiles", state, "--volumes", volumes, "--output", "json"]
        main(["plan", str(file), *map(str, where)])
        (view,) = json.loads(self._capsys.readouterr().out)
        assert view["missing"] == []
        return dict(view)

    def choice(self, slo: Spec, *arguments: Any, **named: Any) -> tuple[str, int]:
        """("", 0): nothing fits."""
        chosen = self.plan(slo, *arguments, **named)["chosen"] or {"candidate": "", "layers": 0}
        return chosen["candidate"], chosen["layers"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Spec]]:
    """The loop, from nothing until everything is measured."""
    root = tmp_path_factory.mktemp("real")
    known = candidates(root / "volumes")
    obj = deployment(list(known.values()), {"minQualityPercent": 90})

    async def measure() -> None:
        options = Options(volumes=root / "volumes", port=0, http_port=0)
        async with LocalRuntime([obj], root / "state", options) as runtime:
            await runtime.wait_for(lambda r: r.condition("chat", "Profiled") == "True", timeout=PATIENCE)

    with brief_jobs():  # how long a step takes is not looked at
        asyncio.run(measure())
    _as_recorded(root / "state" / "objects" / "heliosprofiles")
    return root, known


def _as_recorded(rows: Path) -> None:
    """Quality is the model's and the same anywhere; time and memory are the machine's and of the moment, so
    that they must not decide a test. The layers of both backbones are of one shape: one record for both."""
    timings = [(path, json.loads(path.read_text())) for path in rows.glob("t-*.json")]
    assert len(timings) == 2
    for path, row in timings:
        measured = row["status"]["timing"]
        assert measured.keys() >= TIMING.keys()
        assert measured["memory"].keys() == TIMING["memory"].keys()
        row["status"]["timing"] = measured | TIMING
        path.write_text(json.dumps(row))


@pytest.fixture
def desk(measured: tuple[Path, dict[str, Spec]], capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(*measured, capsys)


def test_a_higher_promise_deepens_the_choice(desk: Desk) -> None:
    asked = {percent: desk.choice({"minQualityPercent": percent}, "general")[1] for percent in (85, 90, 97)}
    assert asked[85] == asked[90] == 24
    assert asked[97] > 24


@pytest.mark.parametrize("asked", [60, 85, 90, 97])
def test_a_bundle_of_noise_is_never_chosen(desk: Desk, asked: int) -> None:
    assert desk.choice({"minQualityPercent": asked})[0] != "noise"
    alone = desk.plan({"minQualityPercent": asked}, "noise")
    assert alone["chosen"]["layers"] == 30  # the model's own head is no noise
    refused = {option["layers"]: option["reason"] for option in alone["options"] if not option["feasible"]}
    assert refused == {24: "QualityTooLow", 27: "QualityTooLow"}


def test_names_and_order_change_nothing(desk: Desk) -> None:
    slo = {"minQualityPercent": 90}
    name, layers = desk.choice(slo, "general noise shorter")
    assert desk.choice(slo, "shorter noise general") == (name, layers)
    renamed = {"general": "zeta", "noise": "alpha", "shorter": "mid"}
    assert desk.choice(slo, "general=zeta shorter=mid noise=alpha") == (renamed[name], layers)


@pytest.mark.long
def test_latency_changes_the_choice(desk: Desk) -> None:
    """Where memory is scarce the model without heads holds more rows and so writes more tokens per second;
    one request alone is quicker through 24 layers and a head than through 26. `make test-long` asks at every
    5 MiB."""

    def choice(objective: str, memory_mib: int) -> str:
        slo = {"minQualityPercent": 85, "optimizationType": objective}
        return desk.choice(slo, memory_mib=memory_mib)[0]

    chosen = [
        (choice("throughput", mib), choice("latency", mib)) for mib in range(665, 740, 5 if LONG else 20)
    ]
    assert ("shorter", "general") in chosen, chosen
    assert chosen[-1] == ("general", "general")  # with memory for all, fewer layers win either way
