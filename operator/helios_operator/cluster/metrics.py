"""What the operator says of itself to Prometheus, names beginning with `helios_operator_`.

Fed by `client` and `operator`, served by `http`. Figures of serving pods are theirs to tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from helios_operator.api.types import Condition, HistoryEntry, Served
from helios_operator.cluster.kinds import Key, Kind
from helios_operator.decide.plan import Plan, SeenQuality
from helios_operator.decide.snapshot import Snapshot

_STATUSES = ("True", "False", "Unknown")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        p = "helios_operator_"
        self.passes = Counter(p + "passes", "Passes over a HeliosDeployment.", ["result"], registry=registry)
        self.pass_seconds = Histogram(
            p + "pass_duration_seconds", "How long a pass took.", buckets=_SECONDS, registry=registry
        )
        self.actions = Counter(p + "actions", "Actions carried out.", ["action"], registry=registry)
        self.decisions = Counter(
            p + "reassessment", "Reassessments that ended.", ["decision"], registry=registry
        )
        self.requests = Counter(
            p + "api_requests", "Calls to the API server.", ["verb", "resource", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            p + "api_request_duration_seconds",
            "How long the API server took to answer.",
            ["verb"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.condition = Gauge(
            p + "condition",
            "1 for the status that a condition has.",
            ["namespace", "name", "type", "status"],
            registry=registry,
        )
        self.replicas = Gauge(
            p + "spec_replicas", "Pods that the spec asks for.", ["namespace", "name"], registry=registry
        )
        self.quality = Gauge(
            p + "quality_ratio",
            "Quality by audits since the last change: estimate and bounds; 1 is the reference.",
            ["namespace", "name", "bound"],
            registry=registry,
        )
        self.profiled = Gauge(
            p + "profiled_quality_ratio",
            "Quality of what serves as in its status: by the profile, rounded down.",
            ["namespace", "name"],
            registry=registry,
        )
        self.quality_target = Gauge(
            p + "quality_target_ratio", "Quality target of the SLO.", ["namespace", "name"], registry=registry
        )
        self.changed = Gauge(
            p + "last_change_timestamp_seconds",
            "When the newest change of what serves ended, by its kind, result and target.",
            ["namespace", "name", "kind", "result", "candidate", "layer_budget"],
            registry=registry,
        )
        self.heard = Gauge(
            p + "last_watch_event_timestamp_seconds",
            "When the newest watch event of the API server came.",
            registry=registry,
        )
        self.waiting = Gauge(p + "queue_depth", "HeliosDeployments that wait for a pass.", registry=registry)

    def called(self, verb: str, kind: Kind | None, code: int, seconds: float) -> None:
        self.requests.labels(verb, kind.plural if kind else "", code).inc()
        self.request_seconds.labels(verb).observe(seconds)

    def passed(self, plan: Plan, snapshot: Snapshot) -> None:
        """A pass over a HeliosDeployment has been carried out."""
        hd, status = snapshot.deployment, plan.status
        key = hd.namespace, hd.name
        self.conditions(key, status.conditions)
        for action in plan.actions:
            self.actions.labels(type(action).__name__).inc()
        after = status.reassessment
        if after.decision and after.last_time != hd.status.reassessment.last_time:
            self.decisions.labels(after.decision.value).inc()
        self.replicas.labels(*key).set(hd.spec.replicas)
        self._qualities(key, plan.quality)
        self._profiled(key, status.active)
        self._changes(key, status.history)

    def conditions(self, key: Key, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            for status in _STATUSES:
                self.condition.labels(*key, condition.type, status).set(condition.status == status)

    def forget(self, key: Key) -> None:
        """Of a HeliosDeployment that is gone."""
        gauges = self.condition, self.replicas, self.quality, self.profiled, self.quality_target, self.changed
        for gauge in gauges:
            _remove(gauge, key)

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def _qualities(self, key: Key, quality: SeenQuality | None) -> None:
        """What is not known any more is not told any more."""
        _remove(self.quality, key)
        _remove(self.quality_target, key)
        if quality is None:
            return
        self.quality_target.labels(*key).set(quality.target / 100)
        seen = {"estimate": quality.mean, "low": quality.low, "high": quality.high}
        for bound, percent in seen.items():
            if percent is not None:
                self.quality.labels(*key, bound).set(percent / 100)

    def _profiled(self, key: Key, active: Served | None) -> None:
        _remove(self.profiled, key)
        if active and active.quality_percent is not None:
            self.profiled.labels(*key).set(active.quality_percent / 100)

    def _changes(self, key: Key, history: Sequence[HistoryEntry]) -> None:
        _remove(self.changed, key)
        if history:
            newest = history[-1]
            what = newest.kind.value, newest.result, newest.to.candidate, str(newest.to.layer_budget)
            self.changed.labels(*key, *what).set(newest.time.timestamp())


def _remove(gauge: Gauge, key: Key) -> None:
    """All that it tells of a HeliosDeployment."""
    for labels in [sample.labels for metric in gauge.collect() for sample in metric.samples]:
        if (labels["namespace"], labels["name"]) == key:
            gauge.remove(*labels.values())
