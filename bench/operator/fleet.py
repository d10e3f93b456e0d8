"""Many HeliosDeployments that have been measured already: what an operator finds when it starts.

Their model is nobody's: the rows of the history table say how fast and how good it is. Deployments are spread
over namespaces, and those of one namespace share its rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from helios_contract.results import ExitQuality, HeadCost, MemoryFacts, Resolved, StepTimeFit
from helios_operator.api import parse, serialize
from helios_operator.api.identity import prompts_digest, quality_name, timing_name
from helios_operator.api.rows import (
    Hardware,
    QualityIdentity,
    QualityRow,
    RowPhase,
    TimingIdentity,
    TimingRow,
)
from helios_operator.api.types import Candidate, CandidateStatus, DeploymentStatus
from helios_operator.cluster import nodes
from helios_operator.cluster.kinds import DEPLOYMENT, NODE, PROFILE, Key, Object
from helios_operator.cluster.mirror import Mirror
from helios_operator.decide.facts.candidates import identity
from helios_server.planning import PERFORMANCE_VERSION

from tests.cluster.admin import NAMESPACE, Admin

LAYERS = 30
NODE_LABELS = {"helios.dev/cpu": "bench"}
_MODEL = Candidate("only", "hf://bench/model", exit_layers=(24, 27))
_REVISION = "0" * 12
_PROMPTS = ("Call me Ishmael.", "Some years ago, never mind how long precisely.", "It was the best of times.")
_MIB = 1024 * 1024
_AT_ONCE = 12


@dataclass(frozen=True)
class Fleet:
    """`count` deployments in so many namespaces named `prefix-N`, for a node with NODE_LABELS."""

    prefix: str
    count: int
    namespaces: int
    node: Object

    @property
    def hardware(self) -> Hardware:
        """As the operator will see it."""
        mirror = Mirror()
        mirror.put(NODE, self.node)
        return nodes.hardware(parse.deployment(self._deployment(next(self.keys()))), mirror)

    @property
    def spaces(self) -> list[str]:
        return [f"{self.prefix}-{number}" for number in range(min(self.namespaces, self.count))]

    def keys(self) -> Iterator[Key]:
        for number in range(self.count):
            yield self.spaces[number % len(self.spaces)], f"d{number}"

    async def create(self, admin: Admin) -> None:
        for space in self.spaces:
            await admin.apply(
                NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
            )
            for row in (self._timing(), _quality()):
                await _write(admin, PROFILE, serialize.profile(row, namespace=space))
        slots = asyncio.Semaphore(_AT_ONCE)

        async def make(key: Key) -> None:
            async with slots:
                await _write(admin, DEPLOYMENT, self._deployment(key))

        await asyncio.gather(*(make(key) for key in self.keys()))

    async def delete(self, admin: Admin) -> None:
        for space in self.spaces:
            await admin.delete(NAMESPACE, "", space)

    def _deployment(self, key: Key) -> Object:
        namespace, name = key
        spec: dict[str, Any] = {
            "candidates": [
                {
                    "name": _MODEL.name,
                    "uri": _MODEL.uri,
                    "exitLayers": list(_MODEL.exit_layers),
                    "weightDtypes": ["auto"],
                    "kvCacheDtypes": ["auto"],
                }
            ],
            "slo": {"minQualityPercent": 80},
            "workload": {"isl": 64, "osl": 48},
            "limits": {"memoryMiB": 1500, "maxBatchSize": 8},
            "profiling": {"prompts": {"inline": list(_PROMPTS)}},
            "template": {"spec": {"nodeSelector": NODE_LABELS}},
        }
        known = CandidateStatus(
            _MODEL.name, "Profiled", True, resolved=_resolved(), identity=identity(_MODEL)
        )
        return {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.name,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
            "status": serialize.status(DeploymentStatus(candidates=(known,))),
        }

    def _timing(self) -> TimingRow:
        measured = TimingIdentity(
            _MODEL.uri, _REVISION, self.hardware.dtype, ("bare",), self.hardware, PERFORMANCE_VERSION
        )
        fit = StepTimeFit(1_500_000, 900_000, 22_000, 14, {"bare": HeadCost(2_000_000, 150_000)}, 4)
        memory = MemoryFacts(
            process_start_bytes=350 * _MIB,
            fixed_bytes=110 * _MIB,
            layer_bytes=7 * _MIB,
            kv_bytes_per_token_layer=1536,
            activation_bytes_per_token=60_000,
            row_bytes=400_000,
            step_tokens=128,
            page_tokens=16,
        )
        name, now = timing_name(measured), datetime.now(UTC)
        return TimingRow(name, measured, RowPhase.COMPLETE, completed=now, fit=fit, memory=memory)


def _quality() -> QualityRow:
    """24 layers keep 90 % of the quality, 27 keep 95 %."""
    measured = QualityIdentity(_MODEL.uri, _REVISION, "", prompts_digest(_PROMPTS))
    sizes = tuple(len(text.encode()) for text in _PROMPTS)
    exits = tuple(
        ExitQuality(layer, sum(bits), agreement, 50, 20, 400, bits)
        for layer, agreement, factor in ((24, 80, 1.11), (27, 90, 1.05), (LAYERS, 100, 1.0))
        for bits in [tuple(round(1000 * size * factor) for size in sizes)]
    )
    return QualityRow(
        quality_name(measured),
        measured,
        RowPhase.COMPLETE,
        completed=datetime.now(UTC),
        prompts=len(sizes),
        tokens=sum(sizes) // 4,
        bytes=sum(sizes),
        prompt_bytes=sizes,
        exits=exits,
    )


def _resolved() -> Resolved:
    return Resolved(
        revision=_REVISION,
        backbone="bench",
        num_layers=LAYERS,
        max_context_tokens=2048,
        exits_digest="",
        head_kind="bare",
        exit_layers=_MODEL.exit_layers,
    )


async def _write(admin: Admin, kind: Any, obj: Object) -> None:
    """Spec, then status: as an operator before this one left it."""
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace")}
    about = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    await admin.apply(kind, about | {"spec": obj["spec"]})
    await admin.apply(kind, about | {"status": obj["status"]}, "status")
