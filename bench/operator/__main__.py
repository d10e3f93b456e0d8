"""One operator, many HeliosDeployments: what it writes when nothing changes, how soon a change of a spec is
applied, and whether its memory grows.

`python -m bench.operator --audit-log FILE`, or `helios bench operator --audit-log FILE`, against the API
server of KUBECONFIG. Everything is real but the pods: their status is written by this process, which also
answers their Control ports. The operator is a process of its own, with the rights of the chart. The audit
log is the API server's: start it with `--audit-log-path=FILE
--audit-policy-file=bench/operator/audit-policy.yaml`.

Claims: `writes-at-rest`, per second, of the operator's account while nothing changed for --seconds (the
interval: Poisson, 95 %); `operator-rss` (mean, least, greatest) and its growth in 10 minutes (a line
through the means of 20 stretches, 95 %); `change-applied-p50` and `-p95`, from the patch of
`limits.maxBatchSize` to the pod's being told, over --changes of them (95 %, by resampling).
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import statistics
import sys
import tempfile
import time
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from helios_operator.cluster.kinds import DEPLOYMENT, Key
from helios_operator.local.processes import Process, helios_command

from bench.operator import audit, process
from bench.operator.fleet import NODE_LABELS, Fleet
from bench.operator.pods import Pods
from bench.report import Claim, arguments, percentile, publish
from tests.cluster.admin import CLUSTER_BINDING, CLUSTER_ROLE, NAMESPACE, Admin, as_account, operator_account
from tests.cluster.live.scene import install, is_ready, kubeconfig
from tests.cluster.node import Node

_SETTLE_SECONDS = 45.0
"""Messages with new figures wait up to 15 s to be written; a pass at rest comes every count / 50 s."""
_PATIENCE_SECONDS = 3600.0
_CHANGE_PATIENCE_SECONDS = 120.0
_RESAMPLES = 2000
_EVER = datetime.fromtimestamp(0, UTC)


def main() -> None:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--count", type=int, default=1000, help="HeliosDeployments (default: 1000)")
    add("--namespaces", type=int, default=20, help="that they are spread over (default: 20)")
    add("--seconds", type=float, default=600.0, help="at rest (default: 600)")
    add("--changes", type=int, default=100, help="of a spec, one after another (default: 100)")
    add("--audit-log", type=Path, metavar="FILE", help="of the API server; without it writes are not counted")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(options: Namespace) -> None:
    admin = await Admin.connect()
    name = f"bench-{uuid.uuid4().hex[:6]}"
    figures: dict[str, Any] = {"deployments": options.count, "namespaces": options.namespaces}
    claims: list[Claim] = []
    try:
        async with _prepared(admin, name, options) as (fleet, pods, folder):
            async with _timed(figures, "secondsToCreate"):
                await fleet.create(admin)
            token = await operator_account(admin, name)
            config = as_account(kubeconfig(), token, folder / "operator.kubeconfig")
            operator, port = await _operator(config, name, folder)
            try:
                async with _timed(figures, "secondsUntilAllServe"):
                    await _all_ready(admin, fleet, operator)
                await asyncio.sleep(_SETTLE_SECONDS + options.count / 50)
                user = f"system:serviceaccount:{name}:helios"
                claims += await _at_rest(operator, port, pods, user, options, figures)
                claims += await _changes(admin, fleet, pods, options, figures)
            finally:
                await operator.stop(20)
            publish(options.output, figures, claims, ("kubernetes", "kopf", "grpcio"))
            _progress("clearing away")
    finally:
        await admin.close()


# -- the scene -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def _prepared(admin: Admin, name: str, options: Namespace) -> AsyncIterator[tuple[Fleet, Pods, Path]]:
    await install(admin)
    await admin.apply(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    capacity = {"cpu": "4096", "memory": "100000Gi", "pods": str(options.count + 100)}
    try:
        async with Node(admin, name, capacity, NODE_LABELS) as node, Pods(admin, name, options.count) as pods:
            fleet = Fleet(name, options.count, options.namespaces, node.as_seen())
            with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
                try:
                    yield fleet, pods, Path(folder)
                finally:
                    await fleet.delete(admin)
                    await pods.delete(fleet.spaces)
    finally:
        await admin.delete(NAMESPACE, "", name)
        await admin.delete(CLUSTER_ROLE, "", f"helios-{name}")
        await admin.delete(CLUSTER_BINDING, "", f"helios-{name}")


async def _operator(config: Path, name: str, folder: Path) -> tuple[Process, int]:
    """Returns the port of its metrics too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = helios_command(
        "operator", "--server-image", "helios-server:bench", "--operator-namespace", name,
        "--operator-name", "helios", "--http-host", "127.0.0.1", "--http-port", str(port),
    )  # fmt: skip
    log = folder / "operator.log"
    return await Process.start(["env", f"KUBECONFIG={config}", *command], log=log), port


async def _all_ready(admin: Admin, fleet: Fleet, operator: Process) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if operator.exit_code is not None:
            raise SystemExit(f"the operator ended: {operator.last_words}")
        found = [obj for space in fleet.spaces for obj in await admin.list(DEPLOYMENT, space)]
        ready = sum(is_ready(obj.get("status", {})) for obj in found)
        _progress(f"{ready} of {fleet.count} serve")
        if ready == fleet.count:
            return
        if time.monotonic() > end:
            raise SystemExit(f"only {ready} of {fleet.count} serve after {_PATIENCE_SECONDS:.0f} s")
        await asyncio.sleep(3)


# -- what is measured ----------------------------------------------------------------------------------------


async def _at_rest(
    operator: Process, port: int, pods: Pods, user: str, options: Namespace, figures: dict[str, Any]
) -> list[Claim]:
    _progress(f"at rest for {options.seconds:.0f} s")
    begin, before, looks = datetime.now(UTC), await _metrics(port), pods.looks
    taken = await process.samples(operator.pid, options.seconds)
    end, after = datetime.now(UTC), await _metrics(port)
    seconds = (end - begin).total_seconds()
    passes = after["passes"] - before["passes"]
    figures["passesPerSecond"] = round(passes / seconds, 2)
    figures["millisecondsPerPass"] = round(1000 * (after["seconds"] - before["seconds"]) / max(passes, 1), 2)
    figures["telemetryPerSecond"] = round((pods.looks - looks) / seconds, 2)
    figures["requestsPerSecond"] = round((after["requests"] - before["requests"]) / seconds, 2)
    cpu = (taken[-1].cpu_seconds - taken[0].cpu_seconds) / (taken[-1].seconds - taken[0].seconds)
    resident = [one.rss_mib for one in taken]
    figures["rssMiB"] = [round(mib, 1) for _, mib in process.stretches(taken)]
    claims = [
        _claim("operator-cpu-at-rest", (cpu, cpu, cpu), "cores"),
        _claim("operator-rss", (statistics.fmean(resident), min(resident), max(resident)), "MiB"),
        _claim("operator-rss-growth", process.growth(taken), "% in 10 minutes"),
    ]
    if options.audit_log is None:
        return claims
    await asyncio.sleep(5)  # the server writes its log in batches
    wrote = audit.writes(options.audit_log, user, begin, end)
    figures["writesUntilRest"] = audit.writes(options.audit_log, user, _EVER, begin).total()
    figures["writesAtRest"] = dict(wrote.most_common())
    rate = tuple(count / seconds for count in _poisson(wrote.total()))
    return [_claim("writes-at-rest", rate, "per second"), *claims]


async def _changes(
    admin: Admin, fleet: Fleet, pods: Pods, options: Namespace, figures: dict[str, Any]
) -> list[Claim]:
    """Each of another deployment, at an even pace."""
    _progress(f"{options.changes} changes")
    order = list(fleet.keys())
    random.Random(0).shuffle(order)
    waits: list[float] = []
    for number in range(options.changes):
        key, rows = order[number % len(order)], 7 - number // len(order)
        waits.append(await _change(admin, pods, key, rows))
        await asyncio.sleep(0.2)
    figures["changeAppliedSeconds"] = [round(wait, 3) for wait in waits]
    return [
        _claim("change-applied-p50", _resampled(waits, 50), "seconds"),
        _claim("change-applied-p95", _resampled(waits, 95), "seconds"),
    ]


async def _change(admin: Admin, pods: Pods, key: Key, rows: int) -> float:
    """Seconds until the pod was told of another batch."""
    began = time.monotonic()
    await admin.merge(DEPLOYMENT, *key, {"spec": {"limits": {"maxBatchSize": rows}}})
    while (told := pods.told.get(key)) is None or told[1].max_batch_size != rows:
        if time.monotonic() > began + _CHANGE_PATIENCE_SECONDS:
            raise SystemExit(f"{'/'.join(key)} was not told within {_CHANGE_PATIENCE_SECONDS:.0f} s")
        await asyncio.sleep(0.005)
    return told[0] - began


# -- figures -------------------------------------------------------------------------------------------------


def _claim(name: str, figure: Sequence[float], unit: str) -> Claim:
    value, low, high = (round(x, 4) for x in figure)
    return Claim(name, value, low, high, unit)


def _poisson(count: int) -> tuple[float, float, float]:
    """A count with its 95 % interval, by the Wilson-Hilferty approximation of the exact one."""
    low = count * (1 - 1 / (9 * count) - 1.96 / (3 * math.sqrt(count))) ** 3 if count else 0.0
    more = count + 1
    return float(count), low, more * (1 - 1 / (9 * more) + 1.96 / (3 * math.sqrt(more))) ** 3


def _resampled(values: Sequence[float], percent: float) -> tuple[float, float, float]:
    source = random.Random(0)
    tries = [percentile(source.choices(values, k=len(values)), percent) for _ in range(_RESAMPLES)]
    return percentile(values, percent), percentile(tries, 2.5), percentile(tries, 97.5)


async def _metrics(port: int) -> dict[str, float]:
    """Passes that ended, the seconds that they took, and calls of the API server, watches apart."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    named = {
        "passes": "helios_operator_passes_total{",
        "seconds": "helios_operator_pass_duration_seconds_sum ",
        "requests": "helios_operator_api_requests_total{",
    }
    return {
        name: sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))
        for name, start in named.items()
    }


@asynccontextmanager
async def _timed(figures: dict[str, Any], name: str) -> AsyncIterator[None]:
    began = time.monotonic()
    yield
    figures[name] = round(time.monotonic() - began, 1)


def _progress(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
