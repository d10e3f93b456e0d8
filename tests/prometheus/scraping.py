"""A real Prometheus that scrapes what a test names, under the labels that the chart's monitors would give.

Used by the dashboard's tests. The Prometheus operator makes scrape configurations of monitors; here the few
fields that ours use are read from the rendered objects.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart import chart
from tests.tools import prometheus

SCRAPED_EVERY = "200ms"
_PATIENCE_SECONDS = 180.0
MONITORED = {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}


@dataclass(frozen=True)
class Target:
    """port: of this machine, with a page /metrics; labels: of the pod, as Kubernetes has them."""

    port: int
    namespace: str
    pod: str
    labels: Mapping[str, str]


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"

    def query(self, expr: str) -> list[dict[str, Any]]:
        """An instant vector, as the API writes it."""
        return list(self._get("/api/v1/query", query=expr)["result"])

    def label_values(self, label: str, selector: str) -> list[str]:
        return list(self._get(f"/api/v1/label/{label}/values", **{"match[]": selector}))

    def until(self, expr: str, holds: Callable[[list[float]], bool]) -> list[dict[str, Any]]:
        """The samples, once their values are such. After a scrape that came too late there are none until the
        next one. The patience only bounds a failure."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            seen = self.query(expr)
            if holds([float(sample["value"][1]) for sample in seen]):
                return seen
            if time.monotonic() > end:
                raise AssertionError(f"{expr} stayed {seen}")
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._root}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self._root}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None


@contextmanager
def scraping(folder: Path, pods: list[Target], operators: list[Target]) -> Iterator[Prometheus]:
    """Until the end of the block; `pods` as the PodMonitor says, `operators` as the ServiceMonitor does."""
    rendered = chart.render(MONITORED)
    pod_monitor = chart.only(rendered, "PodMonitor")["spec"]
    (pods_endpoint,) = pod_monitor["podMetricsEndpoints"]
    (operators_endpoint,) = chart.only(rendered, "ServiceMonitor")["spec"]["endpoints"]
    config = {
        "global": {"scrape_interval": SCRAPED_EVERY, "scrape_timeout": SCRAPED_EVERY},
        "scrape_configs": [
            _job("pods", pods_endpoint, pods, pod_monitor["podTargetLabels"]),
            _job("operators", operators_endpoint, operators, ()),
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(prometheus()),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(port)
            end = time.monotonic() + _PATIENCE_SECONDS
            while not server.ready():
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((folder / "log").read_text())
                time.sleep(0.05)
            yield server
        finally:
            process.kill()


def _job(name: str, endpoint: dict[str, Any], targets: list[Target], copied: Any) -> dict[str, Any]:
    return {
        "job_name": name,
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint.get("honorLabels", False),
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{target.port}"],
                "labels": {
                    "namespace": target.namespace,
                    "pod": target.pod,
                    **{_sanitized(label): target.labels[label] for label in copied},
                },
            }
            for target in targets
        ],
    }


def _sanitized(label: str) -> str:
    """As the Prometheus operator writes a label of Kubernetes."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)
