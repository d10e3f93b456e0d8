"""What the dashboard shows, row by row, and by which queries.

Drawn by `dashboard.py`. Queries select by labels that the chart's monitors give: of pods `namespace` and
`helios_dev_deployment`, of the operator its own `namespace` and `name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PODS = 'namespace="$namespace", helios_dev_deployment="$deployment"'
_OPERATOR = 'namespace="$namespace", name="$deployment"'

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
        "The candidate that serves, and the precision of its weights and KV cache.",
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
        "Serving pods, of those that the spec asks for.",
        {
            "serve": f"sum({_pods('helios_ready')})",
            "asked": f"max({_operator('helios_operator_spec_replicas')})",
        },
        defaults=_FROM_0,
        look={"asked": _ASKED},
    ),
    Panel(
        "Layer budget",
        "The layer budget, and the layers in memory.",
        {
            "{{candidate}}: budget": f"max by (candidate) ({_pods('helios_layer_budget')})",
            "loaded": f"max({_pods('helios_layers_loaded')})",
        },
        columns=12,
        defaults=_FROM_0,
    ),
    Panel(
        "Tokens by depth",
        "Tokens per second, by the depth that computed them.",
        {"{{layer}} layers": f"sum by (layer) ({_rate('helios_exit_layer_total')})"},
        columns=12,
        stacked=True,
        defaults=_FROM_0,
    ),
)
_QUALITY = (
    Panel(
        "Quality against target",
        "Of what serves, by audits since the last change: estimate, one-sided bounds, and the target.",
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
        "Quality and agreement by pod",
        "By each pod's newest audits: bits of full depth over the exit's, and the share of equal tokens.",
        {
            "quality, {{pod}}": _pods("helios_audit_quality_ratio"),
            "agreement, {{pod}}": _pods("helios_audit_agreement_ratio"),
        },
        unit="percentunit",
        columns=12,
    ),
    Panel(
        "Tokens of low confidence",
        "Share of tokens under the exit's confidence threshold.",
        {
            "unsure": (
                f"sum({_rate('helios_confidence_breaches_total')}) / "
                f"sum({_rate('helios_generation_tokens_total')})"
            )
        },
        unit="percentunit",
        columns=6,
        defaults=_SHARE,
    ),
    Panel(
        "CPU time of audits",
        "Their share of the pods' CPU time, at most: threads with other work count in full.",
        {
            "audits": (
                f"sum({_rate('helios_audit_cpu_seconds_total')}) / sum({_rate('process_cpu_seconds_total')})"
            )
        },
        unit="percentunit",
        columns=6,
        defaults=_FROM_0,
    ),
    Panel(
        "Tasks of the probe",
        "Share passed of those that should pass, where a deployment has a task probe.",
        {
            "passed": (
                f"sum({_rate('helios_task_probe_passed_total')}) / "
                f"sum({_rate('helios_task_probe_asked_total')})"
            )
        },
        unit="percentunit",
        columns=6,
        defaults=_SHARE,
    ),
    Panel(
        "Changes of limits",
        "Limits sent to pods, by whether they were applied.",
        {
            "{{result}}": (
                f"sum by (result) (increase({_pods('helios_limits_changes_total')}[$__rate_interval]))"
            )
        },
        stacked=True,
        columns=6,
        defaults=_FROM_0 | {"decimals": 0},
    ),
)
_SPEED = (
    Panel(
        "Tokens per second",
        "Generated tokens, by candidate and layer budget.",
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
        "From one token of a request to the next.",
        _percentiles("helios_inter_token_latency_seconds"),
        unit="s",
        defaults=_FROM_0,
    ),
    Panel(
        "Batch and queue",
        "Running and waiting requests; the batch size, and the most in one step since limits changed.",
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
        "KV cache",
        "Share of the KV cache in use, and share of prompt tokens found in the prefix cache.",
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
        "Needs a meter: nvml and rapl count all users of the device; declared is an estimate.",
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
        "Answered, by finish reason; refused or failed, by gRPC status.",
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
        "Per second, of prompts and generated. Where callers have tokens.",
        {
            "{{caller}}: prompts": f"sum by (caller) ({_rate('helios_caller_prompt_tokens_total')})",
            "{{caller}}: generated": f"sum by (caller) ({_rate('helios_caller_generation_tokens_total')})",
        },
        stacked=True,
        defaults=_FROM_0,
    ),
)
ROWS = {"What serves": _SERVES, "Quality": _QUALITY, "Speed": _SPEED, "Requests": _REQUESTS}
CHANGES = f"{_operator('helios_operator_last_change_timestamp_seconds')} * 1000"
