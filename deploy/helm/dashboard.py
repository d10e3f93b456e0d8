"""The Grafana dashboard of the chart, drawn from its list of panels.

Called by `generate.py`, which writes it to helios/files/dashboards/. The model is that of schema version 39
(Grafana 11; later ones migrate it as they load it). It must hold no query of what is shown: `panels.py` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from panels import CHANGES, ROWS, Json, Panel

_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _HEIGHT = 24, 8


def text() -> str:
    """The dashboard's JSON."""
    return json.dumps(_dashboard(), indent=2) + "\n"


def _dashboard() -> Json:
    return {
        "uid": "helios",
        "title": "HELIOS",
        "description": "A HeliosDeployment: what serves, how good and how fast it is, and who asks.",
        "tags": ["helios"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "annotations": {"list": [_annotation()]},
        "templating": {"list": list(_variables())},
        "panels": _numbered(_laid_out()),
    }


def _annotation() -> Json:
    """The value is the time: Grafana draws one mark for all samples of a change."""
    return {
        "name": "Changes",
        "datasource": _SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "purple",
        "expr": CHANGES,
        "step": "15s",
        "useValueForTime": True,
        "titleFormat": "{{kind}} to {{candidate}} at {{layer_budget}} layers",
        "textFormat": "{{result}}",
        "tagKeys": "kind,result",
    }


def _variables() -> Iterator[Json]:
    yield {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
    }
    yield _variable("namespace", "label_values(helios_ready, namespace)")
    yield _variable("deployment", 'label_values(helios_ready{namespace="$namespace"}, helios_dev_deployment)')


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # with the time range: deployments come and go
        "sort": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
    }


def _laid_out() -> Iterator[Json]:
    top = 0
    for title, panels in ROWS.items():
        yield {
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
        }
        top, left = top + 1, 0
        for panel in panels:
            if left + panel.columns > _COLUMNS:
                top, left = top + _HEIGHT, 0
            yield _drawn(panel) | {"gridPos": {"x": left, "y": top, "w": panel.columns, "h": _HEIGHT}}
            left += panel.columns
        top += _HEIGHT


def _numbered(panels: Iterator[Json]) -> list[Json]:
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def _drawn(panel: Panel) -> Json:
    stacking = {"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 20}} if panel.stacked else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": list(_targets(panel)),
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **panel.defaults, **stacking},
            "overrides": [_override(legend, look) for legend, look in panel.look.items()],
        },
        "options": panel.options or {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list"}},
    }


def _targets(panel: Panel) -> Iterator[Json]:
    for number, (legend, expr) in enumerate(panel.queries.items()):
        yield {
            "refId": chr(ord("A") + number),
            "datasource": _SOURCE,
            "expr": expr,
            "legendFormat": legend,
            "range": panel.kind == "timeseries",
            "instant": panel.kind != "timeseries",
        }


def _override(legend: str, look: Json) -> Json:
    return {
        "matcher": {"id": "byName", "options": legend},
        "properties": [{"id": name, "value": value} for name, value in look.items()],
    }
