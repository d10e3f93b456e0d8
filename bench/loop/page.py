"""The part of docs/benchmarks.md on one result of `bench.loop`: its arms side by side. For `bench.page`.

No figure is typed by hand: the cells are the result's claims, which stand in full below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.page.tables import table, with_range

_COLUMNS = {
    "tokens-per-second": "tokens/s in bursts",
    "response-mean": "response, mean, ms",
    "response-p50": "p50",
    "response-p99": "p99",
    "slo-violations": "beyond the SLO, %",
    "quality": "quality, %",
    "batch": "rows",
    "joules-per-token": "J a token",
    "declared-joules-per-token": "declared J a token",
}


def arms(result: Mapping[str, Any]) -> Iterator[str]:
    """A row an arm, and what is to be known of the run."""
    found, claims = result["figures"], {claim["id"]: claim for claim in result["claims"]}
    shown = [metric for metric in _COLUMNS if any(f"{name}-{metric}" in claims for name in found["arms"])]
    rows = [[name, *(_value(claims.get(f"{name}-{metric}")) for metric in shown)] for name in found["arms"]]
    yield from table(["arm", *(_COLUMNS[metric] for metric in shown)], rows)
    yield ""
    yield f"{found['model']}, {_memory(found['memoryMiB'])}, {found['requests']} requests of"
    yield f"{', '.join(found['kinds'])}. Energy: {found['energySource']}. Token exit leaves from a confidence"
    yield f"of {found['exitThreshold']:g} on."
    if any(found.get("turns", {}).values()):
        yield "Each loop and each static arm took turns; so many requests are one turn's."
    if batching := found["arms"].get("transformers", {}).get("batching"):
        yield f"transformers: {batching}."
    for name, arm in found["arms"].items():
        for change in arm.get("changes", ()):
            yield f"{name}: {_change(change)}."
    if (asked := found.get("asked", ["*"])) != ["*"]:
        yield f"Of all arms these were asked for: {', '.join(asked)}."
    if found["leftOut"]:
        yield f"Left out, for want of time: {', '.join(found['leftOut'])}."
    for name, why in found["errors"].items():
        yield f"{name} failed: {why}."
    yield ""


def _value(claim: Mapping[str, Any] | None) -> str:
    return "-" if claim is None else with_range({**claim, "low": claim["value"], "high": claim["value"]})


def _memory(mib: int) -> str:
    return f"{mib} MiB a pod" if mib else "all the memory there is"


def _change(change: Mapping[str, Any]) -> str:
    return (
        f"{change['kind']} to {change['layers']} layers in {change['precision']}, {change['seconds']:g} s,"
        f" {change['requestsThatWaited']} requests waited"
    )
