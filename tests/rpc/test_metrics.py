"""Metrics: the names that dashboards rely on exist, they move with what is served, and the page in docs lists
them."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from helios_contract.limits import Audit
from helios_proto.v1 import generation_pb2 as pb
from helios_server.telemetry.energy import DeclaredMeter
from helios_server.telemetry.reference import page
from prometheus_client.parser import text_string_to_metric_families

from tests.rpc.pods import EXITS, Served, eventually, generate_request, serving

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


async def samples(pod: Served) -> dict[str, float]:
    """Every sample of the page, by its name and labels as they are written."""
    status, text = await pod.page("/metrics")
    assert status == 200
    list(text_string_to_metric_families(text))
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_metrics_move_with_what_is_served(tiny: Path) -> None:
    energy = DeclaredMeter(100)
    async with serving(tiny, layer_budget=EXITS[1], energy=energy, breach_threshold=1.0) as pod:
        await pod.generate(max_tokens=6)
        await pod.generate(max_tokens=6, request_id="b")
        with pytest.raises(grpc.aio.AioRpcError):
            await pod.generate(max_tokens=0)
        now = await samples(pod)
    served = f'{{candidate="tiny",layer_budget="{EXITS[1]}",model_name="chat"}}'
    own = '{model_name="chat"}'
    precision = 'kv_cache_dtype="auto",model_name="chat",weight_dtype="auto"'
    expected = {
        f"helios_generation_tokens_total{served}": 12,
        f"helios_confidence_breaches_total{served}": 12,
        f"helios_time_to_first_token_seconds_count{served}": 2,
        f"helios_inter_token_latency_seconds_count{served}": 10,
        f"helios_e2e_request_latency_seconds_count{served}": 2,
        f"helios_request_queue_time_seconds_count{served}": 2,
        f"helios_request_prefill_time_seconds_count{served}": 2,
        f"helios_request_decode_time_seconds_count{served}": 2,
        f"helios_request_generation_tokens_sum{served}": 12,
        f"helios_exit_confidence_count{served}": 12,
        f'helios_exit_layer_total{{layer="{EXITS[1]}",model_name="chat"}}': 12,
        'helios_request_success_total{finished_reason="length",model_name="chat"}': 2,
        'helios_request_failure_total{code="INVALID_ARGUMENT",model_name="chat"}': 1,
        f"helios_num_requests_running{own}": 0,
        f"helios_num_requests_waiting{own}": 0,
        f"helios_kv_cache_usage_perc{own}": 0,
        f"helios_ready{own}": 1,
        'helios_layer_budget{candidate="tiny",model_name="chat"}': EXITS[1],
        f'helios_precision_info{{candidate="tiny",{precision}}}': 1,
        f"helios_layers_loaded{own}": EXITS[1],
        f"helios_max_batch_size{own}": 8,
        f"helios_breach_window_ratio{own}": 0.12,
    }
    assert {name: now.get(name) for name in expected} == pytest.approx(expected)
    assert now['helios_energy_joules_total{model_name="chat",source="declared"}'] > 0
    assert now[f"helios_kv_capacity_tokens{own}"] > 0


async def test_what_prompts_find_of_each_other_is_counted_by_salt(tiny: Path) -> None:
    prompt = pb.TokenizedInput(input_ids=range(40))
    async with serving(tiny, layer_budget=EXITS[1]) as pod:
        for salt in ("", "", "a", "a", "a"):
            await pod.generate(tokenized=prompt, cache_salt=salt)
        now = await samples(pod)
    served = f'{{candidate="tiny",layer_budget="{EXITS[1]}",model_name="chat"}}'
    assert now[f"helios_prefix_cache_queries_total{served}"] == 5 * 40
    assert now[f"helios_prefix_cache_hits_total{served}"] == 3 * 32
    assert now[f"helios_prompt_tokens_total{served}"] == 5 * 40
    assert now['helios_kv_cache_usage_perc{model_name="chat"}'] == 0


async def test_a_running_request_shows_in_the_gauges(pod: Served) -> None:
    answer = pod.client.generate(generate_request(max_tokens=2000))
    messages = aiter(answer)
    await anext(messages)
    now = await samples(pod)
    assert now['helios_num_requests_running{model_name="chat"}'] == 1
    assert now['helios_kv_cache_usage_perc{model_name="chat"}'] > 0
    answer.cancel()
    aborted = 'helios_request_success_total{finished_reason="abort",model_name="chat"}'

    async def counted() -> bool:
        return (await samples(pod)).get(aborted) == 1

    await eventually(counted)


async def test_a_change_of_limits_is_counted_and_relabels(pod: Served) -> None:
    await pod.set_limits(layer_budget=EXITS[0], candidate="other")
    with pytest.raises(grpc.aio.AioRpcError):
        await pod.set_limits(generation=1)
    await pod.generate()
    now = await samples(pod)
    assert now['helios_limits_changes_total{model_name="chat",result="applied"}'] == 1
    assert now['helios_limits_changes_total{model_name="chat",result="refused"}'] == 1
    assert now['helios_limits_change_seconds_count{model_name="chat"}'] == 1
    served = f'{{candidate="other",layer_budget="{EXITS[0]}",model_name="chat"}}'
    assert now[f"helios_generation_tokens_total{served}"] == 8
    budgets = [name for name in now if name.startswith("helios_layer_budget{")]
    assert budgets == ['helios_layer_budget{candidate="other",model_name="chat"}']


async def test_audits_show_as_quality(tiny: Path) -> None:
    async with serving(tiny, layer_budget=EXITS[1], audit=Audit(percent=100)) as pod:
        for _ in range(3):
            await pod.generate()

        async def shown() -> bool:
            return 'helios_audit_quality_ratio{model_name="chat"}' in await samples(pod)

        await eventually(shown)
        now = await samples(pod)
        assert 0 < now['helios_audit_quality_ratio{model_name="chat"}'] < 5
        assert 0 <= now['helios_audit_agreement_ratio{model_name="chat"}'] <= 1


def test_the_page_in_docs_is_what_the_code_says() -> None:
    assert DOCS.read_text() == page()
