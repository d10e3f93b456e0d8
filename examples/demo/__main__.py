"""`make demo`: one YAML file in, streamed text out, and every step of the loop real.

First act: one model with exit heads, which may be served as published or in int8; the traffic turns from
prose to code and HELIOS changes the depth. It is played again with a target of 97 %, from what was measured
the first time: what keeps it and is the fastest here serves. Second act: two models without heads; the same
turn makes it switch the model, by a new process, and then in place, where memory holds only one.
TRAFFIC=prose,code names what the callers send in the first act, in order (prose, code, speech, german).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from helios_server.exits.data import DOMAINS
from helios_server.models.cache import cache_root
from helios_server.models.store import drop_layers, ensure_smollm2

from examples.demo import report
from examples.demo.act import Act, Outcome, Programme
from examples.demo.screen import Screen
from examples.demo.texts import ROWS

EXAMPLES = Path(__file__).parent.parent
_DROPPED = (13, 14, 17, 25)
CALLERS = 16
_HIGHER_TARGET = 97


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--traffic", default=os.environ.get("TRAFFIC", "prose,code"))
    parser.add_argument("--acts", default=os.environ.get("ACTS", "1,2"))
    parser.add_argument("--file", type=Path, default=EXAMPLES / "demo.yaml", help="the first act's objects")
    parser.add_argument("--result", type=Path, default=Path("demo-result.json"))
    parser.add_argument("--state", type=Path, default=cache_root() / "demo")
    arguments = parser.parse_args()
    traffic = arguments.traffic.split(",")
    if unknown := [domain for domain in traffic if domain not in DOMAINS]:
        print(f"error: TRAFFIC: {unknown[0]!r} is unknown; use some of {', '.join(DOMAINS)}", file=sys.stderr)
        return 2
    screen = Screen()
    began = time.monotonic()
    prepare(screen)
    acts = [int(act) for act in arguments.acts.split(",")]
    state = arguments.state / time.strftime("%Y%m%d-%H%M%S")
    outcomes = asyncio.run(_play(programmes(arguments.file, traffic, acts, state), state, screen))
    screen.console.print(report.table(outcomes))
    for line in (*report.decisions(outcomes), *report.options(outcomes)):
        screen.say(line)
    document = report.document(outcomes, traffic)
    report.write(arguments.result, document)
    requests = document["requests"]
    screen.say(
        f"{requests['ok']} requests answered, {requests['failed']} failed; "
        f"{time.monotonic() - began:.0f} s; {arguments.result}"
    )
    for error in requests["errors"]:
        screen.say(f"failed: {error}")
    return 1 if requests["failed"] else 0


def prepare(screen: Screen) -> None:
    """The model and its shorter sister, once, in the cache."""
    model = ensure_smollm2(progress=screen.say)
    drop_layers(model, model.with_name(model.name + "-26"), _DROPPED)


def programmes(file: Path, traffic: Sequence[str], acts: Sequence[int], state: Path) -> list[Programme]:
    """Both acts are played twice, the second time from where the first kind of traffic was served: the first
    act with a higher target, the second where memory holds one process."""
    played = []
    if 1 in acts:
        objects, kept = load_objects(file), state / "kept-first"
        title = "Precision and exit heads: the traffic decides the depth"
        first = _programme(1, title, objects, traffic)
        title = f"The same with a target of {_HIGHER_TARGET} %"
        again = _programme(2, title, _promising(_HIGHER_TARGET, objects), traffic[:1])
        played.append(replace(first, keeps=kept))
        played.append(replace(again, begins_from=kept))
    if 2 in acts:
        turn = ("prose", "stdlib")  # the standard library: no head was trained for this act
        objects, title = (
            load_objects(EXAMPLES / "two-backbones.yaml", weights=("auto",)),
            "Two models: the traffic decides the model",
        )
        one, kept = objects[-1]["spec"]["limits"]["memoryMiB"], state / "kept"
        first = _programme(len(played) + 1, f"{title} (a new process)", objects, turn)
        again = _programme(len(played) + 2, f"{title} (memory for one: in place)", objects, turn)
        played.append(replace(first, keeps=kept))
        played.append(replace(again, begins_from=kept, memory_mib=one))
    return played


def _programme(
    number: int, title: str, objects: Sequence[dict[str, Any]], traffic: Sequence[str]
) -> Programme:
    osl = objects[-1]["spec"]["workload"]["osl"]
    return Programme(number, title, objects, traffic, callers=CALLERS, osl=osl)


def _promising(percent: int, objects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    *others, deployment = deepcopy(list(objects))
    deployment["spec"]["slo"]["minQualityPercent"] = percent
    return [*others, deployment]


def load_objects(file: Path, weights: Sequence[str] = ("auto", "int8")) -> list[dict[str, Any]]:
    """The file's objects; the deployment gets the memory under which full depth as published holds four rows
    on this machine, and candidates that say nothing of precision these weights, so that two are timed.
    """
    objects = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    spec = objects[-1]["spec"]
    for candidate in spec["candidates"]:
        candidate.setdefault("weightDtypes", list(weights))
        candidate.setdefault("kvCacheDtypes", ["auto"])
    workload = spec["workload"]
    command = [sys.executable, "-m", "examples.demo.memory", spec["candidates"][0]["uri"]]
    command += ["--volumes", str(cache_root()), "--rows", str(ROWS)]
    command += ["--tokens", str(workload["isl"] + workload["osl"])]
    command += [f"--exits={uri}" for uri in sorted({c["exits"] for c in spec["candidates"] if "exits" in c})]
    spec["limits"]["memoryMiB"] = int(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return objects


async def _play(acts: Sequence[Programme], state: Path, screen: Screen) -> list[Outcome]:
    outcomes = []
    for act in acts:
        limit = act.objects[-1]["spec"]["limits"]["memoryMiB"]
        screen.headline(f"Act {act.number}. {act.title}")
        screen.say(
            f"{' then '.join(act.traffic)}; {act.callers} callers; {limit} MiB for the serving process"
        )
        outcomes.append(await Act(act, state / str(act.number), cache_root(), screen).play())
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
