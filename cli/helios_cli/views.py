"""What `helios status|why|profiles` know: dataclasses made from objects, wherever those came from.

The objects are dicts in the spelling of the CRDs (a state folder, an API server). Nothing is
read or printed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from helios_contract.serves import AUTO, Precision
from helios_operator.api.annotations import newest_request
from helios_operator.api.timestamps import NEVER, format_time, parse_time
from helios_operator.local.events import Echoes, Record

if TYPE_CHECKING:
    from helios_cli.options import OptionView

Object = Mapping[str, Any]


@dataclass(frozen=True)
class StatusView:
    """A deployment as it is. `layers`, `precision` (of weights/keys and values) and `batch` (rows) are of
    what serves now; `running`: its `helios up` runs, or it is a cluster's."""

    name: str
    namespace: str
    running: bool
    phase: str
    ready: str
    candidate: str | None
    layers: int | None
    precision: str | None
    batch: int | None
    quality_percent: int | None
    replicas: str
    endpoint: str
    age_seconds: int
    generation: int
    observed_generation: int
    active: dict[str, Any] | None
    target: dict[str, Any] | None
    conditions: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    history: list[dict[str, Any]]

    @classmethod
    def of(cls, obj: Object, running: bool, now: datetime) -> StatusView:
        metadata, status = obj["metadata"], obj.get("status", {})
        active = status.get("active")
        candidates = [dict(candidate) for candidate in status.get("candidates", [])]
        conditions = [dict(condition) for condition in status.get("conditions", [])]
        return cls(
            name=metadata["name"],
            namespace=metadata.get("namespace", "default"),
            running=running,
            phase=status.get("phase", "Pending") if running else "Stopped",
            ready=next((c["status"] for c in conditions if c["type"] == "Ready"), "Unknown")
            if running
            else "False",
            candidate=active["candidate"] if active else None,
            layers=active["layerBudget"] if active else None,
            precision=precision_of(active) if active else None,
            batch=active["maxBatchSize"] if active else None,
            quality_percent=quality_of(active, candidates),
            replicas=f"{status.get('readyReplicas', 0) if running else 0}/{obj['spec'].get('replicas', 1)}",
            endpoint=status.get("endpoint", ""),
            age_seconds=_age(metadata.get("creationTimestamp"), now),
            generation=metadata.get("generation", 0),
            observed_generation=status.get("observedGeneration", 0),
            active=active,
            target=status.get("target"),
            conditions=conditions,
            candidates=candidates,
            history=[dict(entry) for entry in status.get("history", [])],
        )


@dataclass(frozen=True)
class WhyView:
    """The reasons: the last reassessment, what each candidate and each of its options came to, the changes
    made, the newest decisions. `objective`: that options are ordered by; `notes`: what was left out of them;
    `asked`: what was asked by hand and has no answer yet; `no_data_since`: since when nobody knows what
    happens, None while somebody does."""

    name: str
    running: bool
    active: dict[str, Any] | None
    reassessment: dict[str, Any]
    candidates: list[dict[str, Any]]
    history: list[dict[str, Any]]
    decisions: list[Record] = field(default_factory=list)
    options: list[OptionView] = field(default_factory=list)
    objective: str = ""
    notes: list[str] = field(default_factory=list)
    asked: str = ""
    no_data_since: str | None = None

    @classmethod
    def of(
        cls,
        obj: Object,
        records: Sequence[Record],
        last: int,
        options: Sequence[OptionView] = (),
        running: bool = True,
        notes: Sequence[str] = (),
    ) -> WhyView:
        status = obj.get("status", {})
        echoes = Echoes()
        told = [r for r in records if r.source in ("decision", "event") and not echoes.is_echo(r)]
        return cls(
            name=obj["metadata"]["name"],
            running=running,
            active=status.get("active"),
            reassessment=dict(status.get("reassessment", {})),
            candidates=[dict(candidate) for candidate in status.get("candidates", [])],
            history=[dict(entry) for entry in status.get("history", [])],
            decisions=told[-last:],
            options=list(options),
            notes=list(notes),
            asked=_asked(obj),
            no_data_since=_no_data_since(status, records, running),
        )


@dataclass(frozen=True)
class ProfileView:
    """A row of the Performance History Table. `about`: the uri that was measured, `precision`: held how;
    `summary`: its figures in words."""

    name: str
    namespace: str
    kind: str
    phase: str
    about: str
    revision: str
    precision: str
    summary: str
    completed: str | None
    used_by: list[str]
    measured: dict[str, Any]

    @classmethod
    def of(cls, obj: Object) -> ProfileView:
        kind, status = obj["spec"]["kind"], obj.get("status", {})
        identity = obj["spec"][kind.lower()]
        model = identity["backbone"] if kind == "Timing" else identity["candidate"]
        measured = dict(status.get(kind.lower(), {}))
        summary = _timing(measured) if kind == "Timing" else _quality(measured)
        return cls(
            name=obj["metadata"]["name"],
            namespace=obj["metadata"].get("namespace", "default"),
            kind=kind,
            phase=status.get("phase", "Pending"),
            about=model["uri"],
            revision=model["revision"],
            precision=precision_of(identity),
            summary=summary if measured else status.get("message", ""),
            completed=status.get("completionTime"),
            used_by=[owner["name"] for owner in obj["metadata"].get("ownerReferences", [])],
            measured=measured,
        )


PUBLISHED = str(Precision())


def quality_of(active: Object | None, candidates: Sequence[Object]) -> int | None:
    """Of what serves. An older operator's status has it of each candidate's best option alone."""
    if active is None:
        return None
    if "qualityPercent" in active:
        return int(active["qualityPercent"])
    served = (active["candidate"], active["layerBudget"])
    best = next((c for c in candidates if (c["name"], c.get("layerBudget")) == served), {})
    return best.get("qualityPercent") if precision_of(best) == precision_of(active) else None


def _asked(obj: Object) -> str:
    """The newest request that the status does not answer."""
    memory = obj.get("status", {}).get("reassessment", {})
    request = newest_request(obj["metadata"].get("annotations", {}))
    if request is None or request.asked == NEVER:
        return ""
    seen = memory.get("triggeredAt")
    is_new = not seen or parse_time(seen) < request.asked
    if not is_new and memory.get("trigger") != "Manual":
        return ""
    what = f"switch to {request.switch_to}" if request.switch_to else "reassess"
    return f"{what}, requested by hand at {short_time(format_time(request.asked))}"


def _no_data_since(status: Object, records: Sequence[Record], running: bool) -> str | None:
    blind: str | None = status.get("reassessment", {}).get("blindSince")
    if running or blind:
        return blind
    return records[-1].time if records else status.get("reassessment", {}).get("lastTime")


def precision_of(held: Mapping[str, Any]) -> str:
    """How the weights/keys and values of a service, an option or a row are held."""
    return str(Precision(held.get("weightDtype", AUTO), held.get("kvCacheDtype", AUTO)))


def weighs_precisions(candidates: Sequence[Mapping[str, Any]], active: Mapping[str, Any] | None) -> bool:
    """More than as published: a table then says which."""
    held = [*candidates, *([active] if active else [])]
    return any(each.get("profiles") or precision_of(each) != PUBLISHED for each in held)


def _timing(measured: Mapping[str, Any]) -> str:
    fit = measured.get("fit", {})
    layer = fit.get("perLayerNs", 0) / 1e3
    return f"{layer:.0f} us per layer, error of the fit {fit.get('errorPercent', 0)} %"


def _quality(measured: Mapping[str, Any]) -> str:
    """Of each depth against the model's own full depth, on the row's prompts."""
    exits = measured.get("exits", [])
    full = exits[-1]["millibits"] if exits else 0
    shares = [f"{e['layer']}: {100 * full // max(e['millibits'], 1)} %" for e in exits[:-1]]
    depth = f"{exits[-1]['layer']} layers full" if exits else ""
    return f"{', '.join([*shares, depth])} ({measured.get('prompts', 0)} prompts)"


def _age(created: str | None, now: datetime) -> int:
    if not created:
        return 0
    born = datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max(0, int((now - born).total_seconds()))


def short_time(time: str | None) -> str:
    """To the second."""
    return f"{time.removesuffix('Z')[:19]}Z" if time else ""


def short_age(seconds: int) -> str:
    """As kubectl prints it: 45s, 12m, 3h, 4d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
