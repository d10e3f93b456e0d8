"""Does it leave well alone? Runs of steady traffic of one domain; counts the changes and alarms, as they
fell.

`python -m bench.steady`: --runs runs of --requests requests after the first selection, each on fresh
prompts under examples/demo.yaml, every part real. Claims: changes, and alarms that the default
trigger heeds, per run (median, least, greatest) and in all; beside them what the paper's breach counter
called, which `trigger: Confidence` would have answered.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helios_operator.api.types import Trigger
from helios_operator.decide.snapshot import Snapshot
from helios_operator.decide.weigh import triggers
from helios_operator.local.runtime import LocalRuntime, Options
from helios_server.models.cache import cache_root
from helios_server.models.store import ensure_smollm2

from bench.report import Claim, arguments, claim, publish
from examples.demo.__main__ import load_objects
from examples.demo.texts import passages
from examples.demo.traffic import Traffic

_HEEDED = triggers.KINDS[Trigger.AUDIT]
_DEMO = Path(__file__).parent.parent / "examples" / "demo.yaml"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--domain", default="prose")
    parser.add_argument("--osl", type=int, default=24, help="new tokens per request")
    options = parser.parse_args()
    ensure_smollm2()
    runs = [asyncio.run(_run(number, options)) for number in range(options.runs)]
    figures = {"domain": options.domain, "requests": options.requests, "runs": runs}
    publish(options.output, figures, claims_of(runs))


def claims_of(runs: Sequence[Mapping[str, Any]]) -> list[Claim]:
    changes = [float(len(run["changes"])) for run in runs]
    alarms = [float(sum(alarm["kind"] in _HEEDED for alarm in run["alarms"])) for run in runs]
    breaches = [float(sum(alarm["kind"] not in _HEEDED for alarm in run["alarms"])) for run in runs]
    return [
        claim("changes-per-run", changes, "changes"),
        claim("alarms-per-run", alarms, "alarms"),
        claim("breach-counter-calls-per-run", breaches, "calls"),
        _total("changes-in-all", changes, "changes"),
        _total("alarms-in-all", alarms, "alarms"),
        _total("breach-counter-calls-in-all", breaches, "calls"),
        _total("failed-requests-in-all", [float(run["failed"]) for run in runs], "requests"),
    ]


def _total(name: str, counts: list[float], unit: str) -> Claim:
    return Claim(name, sum(counts), sum(counts), sum(counts), unit)


async def _run(number: int, options: Any) -> dict[str, Any]:
    objects = load_objects(_DEMO)
    name = objects[-1]["metadata"]["name"]
    count = options.requests + 200
    texts = passages(objects, options.domain, count, volumes=cache_root(), seed=100 + number)
    with tempfile.TemporaryDirectory(prefix="helios-steady-") as state:
        runtime = LocalRuntime(
            objects, Path(state), Options(volumes=cache_root(), port=0, http=False, command="bench.steady")
        )
        async with runtime:
            await runtime.wait_for(lambda up: _active(up.snapshot(name)), 120)
            traffic = Traffic(runtime.front_address(name), callers=16, osl=options.osl)
            async with traffic.flowing(options.domain, texts):
                await _until(lambda: bool(_history(runtime.snapshot(name))), 300)
                begun = len(traffic.ledger.streams)
                alarms: dict[tuple[str, int], dict[str, Any]] = {}
                while len(traffic.ledger.streams) < begun + options.requests:
                    await asyncio.sleep(0.5)
                    alarms |= _alarms(runtime.snapshot(name))
            changes = _history(runtime.snapshot(name))[1:]
    result = {
        "selected": _history_line(_history(runtime.snapshot(name))[0]),
        "changes": [_history_line(entry) for entry in changes],
        "alarms": list(alarms.values()),
        "answered": traffic.ledger.ok,
        "failed": traffic.ledger.failed,
    }
    print(f"run {number + 1}: {len(changes)} changes, {len(alarms)} alarms", file=sys.stderr)
    return result


def _active(snapshot: Snapshot | None) -> bool:
    if snapshot is None or snapshot.deployment.status.active is None:
        return False
    return any(pod.ready for revision in snapshot.revisions for pod in revision.pods)


def _history(snapshot: Snapshot | None) -> list[Any]:
    return sorted(snapshot.deployment.status.history, key=lambda entry: entry.time) if snapshot else []


def _history_line(entry: Any) -> dict[str, Any]:
    return {"kind": entry.kind.value, "layers": entry.to.layer_budget, "message": entry.message}


def _alarms(snapshot: Snapshot | None) -> dict[tuple[str, int], dict[str, Any]]:
    """By pod's boot and request, after the selection (a change of limits resets the detectors)."""
    pods = [pod for revision in (snapshot.revisions if snapshot else ()) for pod in revision.pods]
    return {
        (pod.telemetry.boot_id + alarm.kind, alarm.at_request): asdict(alarm)
        | {"time": alarm.time.isoformat()}
        for pod in pods
        if pod.telemetry
        for alarm in pod.telemetry.alarms
    }


async def _until(holds: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    main()
