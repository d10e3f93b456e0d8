"""The Grafana dashboard of the chart: what it shows, and by which queries.

Called by `generate.py`, which writes it to helios/files/dashboards/. The model is that of schema version 39
(Grafana 11; later ones migrate it as they load it). Queries select by labels that the chart's monitors give:
of pods `namespace` and `helios_dev_deployment`, of the operator its own `namespace` and `name`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PODS = 'namespace="$namespace", helios_dev_deployment="$deployment"'
_OPERATOR = 'namespace="$namespace", name="$deployment"'
_COLUMNS, _HEIGHT = 24, 8

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """queries: by legend; unit, defaults, options: in Grafana's words; columns: of 24; look: properties of
    series, by their legend."""

    title: str
    about: str
    queries: Mapping[str, str]
    unit: str = "short"
    columns: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    defaults: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    look: Mapping[str, Json] = field(default_factory=dict)


def _pods(metric: str, more: str = "") -> str:
    return f"{metric}{{{_PODS}{more}}}"


def _operator(metric: str, more: str = "") -> str:
    return f"{metric}{{{_OPERATOR}{more}}}"


def _rate(metric: str) -> str:
    return f"rate({_pods(metric)}[$__rate_interval])"


def _percentiles(metric: str) -> dict[str, str]:
    buckets = f"sum by (le) ({_rate(f'{metric}_bucket')})"
    return {f"p{percent}": f"histogram_quantile({percent / 100}, {buckets})" for percent in (50, 95, 99)}


_TRUE, _ESTIMATE, _LOW, _HIGH = (
    f', {name}="{value}"'
    for name, value in (("status", "True"), ("bound", "estimate"), ("bound", "low"), ("bound", "high"))
)
_LAST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"}
_NO_OR_YES = {
    "mappings": [
        {
            "type": "value",
            "options": {"0": {"text": "no", "index": 0}, "1": {"text": "yes", "color": "green", "index": 1}},
        }
    ]
}
_ASKED = {"custom.lineStyle": {"fill": "dash"}, "color": {"mode": "fixed", "fixedColor": "red"}}
_BOUND = {"custom.lineWidth": 0, "color": {"mode": "fixed", "fixedColor": "blue"}}
_SHARE = {"min": 0, "max": 1}
_FROM_0 = {"min": 0}

_SERVES = (
    Panel(
        "Model and precision",
        "The candidate that serves, and the precision that its weights, keys and values are held in.",
        {
            "{{candidate}}: weights {{weight_dtype}}, keys and values {{kv_cache_dtype}}": (
                f"count by (candidate, weight_dtype, kv_cache_dtype) ({_pods('helios_precision_info')})"
            )
        },
        kind="stat",
        options=_LAST | {"textMode": "name", "colorMode": "none"},
    ),
    Panel(
        "Conditions",
        "`kubectl describe hd` says why.",
        {"{{type}}": f"max by (type) ({_operator('helios_operator_condition', _TRUE)})"},
        kind="stat",
        defaults=_NO_OR_YES,
        options=_LAST,
    ),
    Panel(
        "Pods",
        "Those that serve, of those that are asked for.",
        {
            "serve": f"sum({_pods('helios_ready')})",
            "asked": f"max({_operator('helios_operator_spec_replicas')})",
        },
        defaults=_FROM_0,
        look={"asked": _ASKED},
    ),
    Panel(
        "Layer budget",
        "Layers that are held to serve, and those in memory.",
        {
            "{{candidate}}: budget": f"max by (candidate) ({_pods('helios_layer_budget')})",
            "loaded": f"max({_pods('helios_layers_loaded')})",
        },
        columns=12,
        defaults=_FROM_0,
    ),
    Panel(
        "Tokens by depth",
        "Tokens a second, by the layers that made them.",
        {"{{layer}} layers": f"sum by (layer) ({_rate('helios_exit_layer_total')})"},
        columns=12,
        stacked=True,
        defaults=_FROM_0,
    ),
)
_QUALITY = (
    Panel(
        "Quality against target",
        "Of what serves, by audits since the last change: estimate, one-sided bounds, and what is asked for.",
        {
            "low": _operator("helios_operator_quality_ratio", _LOW),
            "high": _operator("helios_operator_quality_ratio", _HIGH),
            "quality": _operator("helios_operator_quality_ratio", _ESTIMATE),
            "asked": _operator("helios_operator_quality_target_ratio"),
        },
        unit="percentunit",
        columns=12,
        look={
            "low": _BOUND,
            "high": _BOUND | {"custom.fillBelowTo": "low"},
            "quality": {"color": {"mode": "fixed", "fixedColor": "blue"}},
            "asked": _ASKED,
        },
    ),
    Panel(
        "Quality and agreement that pods see",
        "By each pod's newest audits: bits of full depth over the exit's, and tokens that both would choose.",
        {
            "quality, {{pod}}": _pods("helios_audit_quality_ratio"),
            "agreement, {{pod}}": _pods("helios_audit_agreement_ratio"),
        },
        unit="percentunit",
        columns=12,
    ),
    Panel(
        "Unsure tokens",
        "Share under the exit's confidence threshold.",
        {
            "unsure": (
                f"sum({_rate('helios_confidence_breaches_total')}) / "
                f"sum({_rate('helios_generation_tokens_total')})"
            )
        },
        unit="percentunit",
        defaults=_SHARE,
    ),
    Panel(
        "CPU time of audits",
        "Their share of the pods', at most: threads that may have done other work count whole.",
        {
            "audits": (
                f"sum({_rate('helios_audit_cpu_seconds_total')}) / sum({_rate('process_cpu_seconds_total')})"
            )
        },
        unit="percentunit",
        defaults=_FROM_0,
    ),
    Panel(
        "Changes of limits",
        "What pods were told, by whether they took it.",
        {
            "{{result}}": (
                f"sum by (result) (increase({_pods('helios_limits_changes_total')}[$__rate_interval]))"
            )
        },
        stacked=True,
        defaults=_FROM_0 | {"decimals": 0},
    ),
)
_SPEED = (
    Panel(
        "Tokens a second",
        "Generated, by what made them.",
        {
            "{{candidate}} at {{layer_budget}}": (
                f"sum by (candidate, layer_budget) ({_rate('helios_generation_tokens_total')})"
            )
        },
        stacked=True,
        defaults=_FROM_0,
    ),
    Panel(
        "Time to first token",
        "From a request's arrival.",
        _percentiles("helios_time_to_first_token_seconds"),
        unit="s",
        defaults=_FROM_0,
    ),
    Panel(
        "Time between tokens",
        "Of one request.",
        _percentiles("helios_inter_token_latency_seconds"),
        unit="s",
        defaults=_FROM_0,
    ),
    Panel(
        "Batch and queue",
        "Requests that run and that wait; rows that fit, and the most in one step since limits changed.",
        {
            "run": f"sum({_pods('helios_num_requests_running')})",
            "wait": f"sum({_pods('helios_num_requests_waiting')})",
            "reached": f"sum({_pods('helios_batch_size_reached')})",
            "fit": f"sum({_pods('helios_max_batch_size')})",
        },
        defaults=_FROM_0,
        look={"fit": _ASKED},
    ),
    Panel(
        "Keys and values",
        "Share of their memory in use, and of prompt tokens that another prompt had computed.",
        {
            "in use, {{pod}}": _pods("helios_kv_cache_usage_perc"),
            "found": (
                f"sum({_rate('helios_prefix_cache_hits_total')}) / "
                f"sum({_rate('helios_prefix_cache_queries_total')})"
            ),
        },
        unit="percentunit",
        defaults=_SHARE,
    ),
    Panel(
        "Joules per token",
        "Where there is a meter: nvml and rapl count the device, whoever uses it; declared is an estimate.",
        {
            "{{source}}": (
                f"sum by (source) ({_rate('helios_energy_joules_total')}) / on () group_left () "
                f"sum({_rate('helios_generation_tokens_total')})"
            )
        },
        unit="joule",
        defaults=_FROM_0,
    ),
)
_REQUESTS = (
    Panel(
        "Requests by outcome",
        "Answered, by why the answer ended; refused or failed, by gRPC status.",
        {
            "{{finished_reason}}": f"sum by (finished_reason) ({_rate('helios_request_success_total')})",
            "{{code}}": f"sum by (code) ({_rate('helios_request_failure_total')})",
        },
        unit="reqps",
        stacked=True,
        defaults=_FROM_0,
    ),
    Panel(
        "Requests by caller",
        "Where callers have tokens.",
        {"{{caller}}": f"sum by (caller) ({_rate('helios_caller_requests_total')})"},
        unit="reqps",
        stacked=True,
        defaults=_FROM_0,
    ),
    Panel(
        "Tokens by caller",
        "A second, of prompts and generated. Where callers have tokens.",
        {
            "{{caller}}: prompts": f"sum by (caller) ({_rate('helios_caller_prompt_tokens_total')})",
            "{{caller}}: generated": f"sum by (caller) ({_rate('helios_caller_generation_tokens_total')})",
        },
        stacked=True,
        defaults=_FROM_0,
    ),
)
_ROWS = {"What serves": _SERVES, "Quality": _QUALITY, "Speed": _SPEED, "Requests": _REQUESTS}
_CHANGES = f"{_operator('helios_operator_last_change_timestamp_seconds')} * 1000"


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
        "expr": _CHANGES,
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
    for title, panels in _ROWS.items():
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
