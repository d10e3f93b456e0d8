"""What the operator says of itself to Prometheus, names beginning with `helios_operator_`.

Fed by `client` and `operator`, served by `http`. Figures of serving pods are theirs to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from helios_operator.api.types import Condition
from helios_operator.cluster.kinds import Key, Kind

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
            p + "api_requests", "Calls of the API server.", ["verb", "resource", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            p + "api_request_duration_seconds",
            "How long the API server took.",
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
        self.heard = Gauge(
            p + "last_watch_event_timestamp_seconds",
            "When the API server last told something.",
            registry=registry,
        )
        self.waiting = Gauge(p + "queue_depth", "HeliosDeployments that wait for a pass.", registry=registry)

    def called(self, verb: str, kind: Kind | None, code: int, seconds: float) -> None:
        self.requests.labels(verb, kind.plural if kind else "", code).inc()
        self.request_seconds.labels(verb).observe(seconds)

    def conditions(self, key: Key, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            for status in _STATUSES:
                self.condition.labels(*key, condition.type, status).set(condition.status == status)

    def forget(self, key: Key) -> None:
        """Of a HeliosDeployment that is gone."""
        for labels in [labels for labels in self._told() if (labels["namespace"], labels["name"]) == key]:
            self.condition.remove(*(labels[name] for name in ("namespace", "name", "type", "status")))

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def _told(self) -> list[Mapping[str, str]]:
        return [sample.labels for metric in self.condition.collect() for sample in metric.samples]
