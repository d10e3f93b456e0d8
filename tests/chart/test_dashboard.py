"""The dashboard's ConfigMap, and its JSON as Grafana's model of dashboards (schema version 39) has it. What
its queries find is asked in tests/prometheus."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from helios_operator.cluster.metrics import Metrics as OperatorMetrics
from helios_server.telemetry.metrics import Metrics as ServerMetrics

from tests.chart import chart

FILE = chart.CHART / "files/dashboards/helios.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS = DASHBOARD["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
UNITS = {"short", "percentunit", "s", "reqps", "joule"}
"""Grafana's ids of those that are used."""
OF_GRAFANA = {"$__rate_interval"}


def config_map(**values: Any) -> chart.Manifest:
    return chart.only(chart.render({"metrics": {"dashboard": {"enabled": True, **values}}}), "ConfigMap")


def test_it_is_there_when_it_is_asked_for() -> None:
    assert not chart.of_kind(chart.render(), "ConfigMap")
    made = config_map()
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert made["metadata"]["namespace"] == chart.NAMESPACE
    assert json.loads(made["data"]["helios.json"]) == DASHBOARD
    assert len(FILE.read_bytes()) < 1 << 20  # what a ConfigMap holds


def test_label_namespace_and_folder_are_the_sidecars() -> None:
    metadata = config_map(
        labels={"grafana_dashboard": None, "team": "a"},
        namespace="monitoring",
        annotations={"grafana_folder": "Serving"},
    )["metadata"]
    assert metadata["labels"]["team"] == "a"
    assert "grafana_dashboard" not in metadata["labels"]
    assert metadata["annotations"] == {"grafana_folder": "Serving"}
    assert (metadata["namespace"], metadata["name"]) == ("monitoring", "helios-system.helios-dashboard")


def test_two_releases_do_not_meet_where_the_sidecar_looks() -> None:
    values = {"metrics": {"dashboard": {"enabled": True, "namespace": "monitoring"}}}
    names = {
        chart.only(chart.render(values, release, namespace=namespace), "ConfigMap")["metadata"]["name"]
        for release, namespace in (("helios", "a"), ("helios", "b"), ("b-helios", "a"), ("helios", "a-b"))
    }
    assert len(names) == 4


def test_panels_stand_side_by_side_on_24_columns() -> None:
    taken = [(panel["id"], panel["gridPos"]) for panel in PANELS]
    assert len({number for number, _ in taken}) == len(PANELS)
    for _, place in taken:
        assert place["x"] in range(24 - place["w"] + 1)
    for (one, a), (other, b) in combinations(taken, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("panel", SHOWN, ids=[panel["title"] for panel in SHOWN])
def test_a_panel_is_whole(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("timeseries", "stat")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS | {"none"}
    references = [target["refId"] for target in panel["targets"]]
    assert references == sorted(set(references))
    legends = {target["legendFormat"] for target in panel["targets"]}
    assert {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]} <= legends
    for asked in (panel, *panel["targets"]):
        assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_only_variables_that_there_are_are_used() -> None:
    offered = {f"${variable['name']}" for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\w+", json.dumps(DASHBOARD).replace("${datasource}", "$datasource")))
    assert used == offered | OF_GRAFANA


def test_it_asks_for_metrics_that_are_exported() -> None:
    exported = (ServerMetrics("chat").render() + OperatorMetrics().page()).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exported, re.MULTILINE))
    asked = set(re.findall(r"\b(?:helios|process)_\w+", json.dumps(DASHBOARD))) - {"helios_dev_deployment"}
    for name in asked:
        assert name in kinds or kinds.get(name.removesuffix("_bucket")) == "histogram", name
