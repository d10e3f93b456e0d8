"""The dashboard's queries, each asked of a real Prometheus that scrapes a real pod and an operator's page."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from helios_contract import tasks
from helios_contract.limits import Audit, TaskProbe
from helios_contract.tasks import Expectation, Task
from helios_operator.cluster.http import Page
from helios_operator.cluster.metrics import Metrics
from helios_operator.render.labels import DEPLOYMENT, REVISION
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.server import Access
from helios_server.telemetry.energy import DeclaredMeter

from tests.chart import chart
from tests.checkpoints import make_checkpoint
from tests.decide.builders import selected, world
from tests.decide.truth import GENERAL
from tests.prometheus.scraping import Prometheus, Target, scraping
from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, generate_request, serving

DASHBOARD = json.loads((chart.CHART / "files/dashboards/helios.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
(CHANGES,) = DASHBOARD["annotations"]["list"]
CHOSEN = {"$namespace": "default", "$deployment": "chat", "$__rate_interval": "5m"}
EACH_ROUND = 8
"""Requests."""
TOKEN = "a-token-of-the-tests"


def interpolated(expr: str) -> str:
    """As Grafana does before it asks."""
    for variable, value in CHOSEN.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What Prometheus says to each query."""
    return asyncio.run(_ask_everything(tmp_path_factory.mktemp("prometheus")))


async def _ask_everything(folder: Path) -> dict[str, list[dict[str, Any]]]:
    async with AsyncExitStack() as stack:
        pod = await stack.enter_async_context(_pod(folder))
        operator_port = await stack.enter_async_context(_operator())
        labels = {DEPLOYMENT: "chat", REVISION: "1"}
        pods = [Target(pod.ports.metrics_port, "default", "chat-1-a", labels)]
        operators = [Target(operator_port, "helios-system", "helios-b", {})]
        server = stack.enter_context(scraping(folder, pods, operators))
        for round_ in (1, 2):  # a rate needs two looks at a series, with requests between
            await _requests(pod, round_)
            await asyncio.to_thread(
                server.until,
                "helios_caller_requests_total",
                lambda seen, want=round_: sum(seen) >= EACH_ROUND * want,
            )
        return await asyncio.to_thread(_asked, server)


def _asked(server: Prometheus) -> dict[str, list[dict[str, Any]]]:
    exprs = {**QUERIES, "changes": CHANGES["expr"], "keda": _of_keda()}
    found = {name: server.until(interpolated(expr), _numbers) for name, expr in exprs.items()}
    for variable in DASHBOARD["templating"]["list"][1:]:
        selector, _, label = variable["definition"].removeprefix("label_values(")[:-1].rpartition(", ")
        known = server.label_values(label, interpolated(selector))
        found[variable["name"]] = [{"values": known}]
    return found


def _numbers(values: list[float]) -> bool:
    """Of two rates the quotient is none until both have moved between two looks."""
    return bool(values) and not any(math.isnan(value) for value in values)


@asynccontextmanager
async def _pod(folder: Path) -> AsyncIterator[Served]:
    """One that audits, counts callers, declares energy, is asked tasks, and was told other limits."""
    tokens = folder / "tokens"
    tokens.mkdir()
    (tokens / "team-a").write_text(TOKEN)
    model = make_checkpoint(folder / "tiny", layers=LAYERS, max_position_embeddings=4096)
    access = Access(callers=CallerTokens(tokens))
    energy, audit = DeclaredMeter(100), Audit(percent=50)
    asked, file = [Task("any", Expectation(regex="^"), "a text", max_tokens=1)], folder / "tasks.json"
    file.write_text(tasks.document(asked))
    probe = TaskProbe(tasks.digest(asked), 0.2, 1, tasks.bits([True]))
    async with serving(
        model,
        access=access,
        energy=energy,
        audit=audit,
        layer_budget=LAYERS,
        breach_threshold=1.0,
        tasks_file=file,
        task_probe=probe,
    ) as pod:
        await pod.set_limits(layer_budget=EXITS[1])
        yield pod


@asynccontextmanager
async def _operator() -> AsyncIterator[int]:
    """The page of an operator that selected, and then grew for what its audits saw."""
    metrics = Metrics()
    made = selected(world(general=GENERAL))
    made.serve(200, "code")
    snapshot = made.snapshot()
    metrics.passed(made.look(), snapshot)
    page = Page(metrics, lambda: 1.0)
    try:
        yield await page.open("127.0.0.1", 0)
    finally:
        await page.close()


async def _requests(pod: Served, round_: int) -> None:
    """Answered or refused, by both doors."""
    token = (("authorization", f"Bearer {TOKEN}"),)
    for number in range(EACH_ROUND - 2):
        request = generate_request(PROMPT * 3, request_id=f"{round_}-{number}")
        async for _ in pod.client.stub.Generate(request, metadata=token):
            pass
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in pod.client.stub.Generate(generate_request(max_tokens=0), metadata=token):
            pass
    url = f"http://127.0.0.1:{pod.ports.http_port}/v1/completions"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json={"model": "chat", "prompt": PROMPT, "max_tokens": 8}) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_finds_something(answers: dict[str, list[dict[str, Any]]], name: str) -> None:
    assert _numbers([float(sample["value"][1]) for sample in answers[name]])


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_legends_name_labels_that_are_there(answers: dict[str, list[dict[str, Any]]], panel: Any) -> None:
    for target in panel["targets"]:
        (sample, *_) = answers[f"{panel['title']}: {target['legendFormat']}"]
        for label in _labels(target["legendFormat"]):
            assert sample["metric"].get(label)


def test_a_change_is_marked_at_its_time(answers: dict[str, list[dict[str, Any]]]) -> None:
    assert CHANGES["useValueForTime"]
    (sample,) = answers["changes"]
    what = {
        label: sample["metric"][label] for label in _labels(CHANGES["titleFormat"] + CHANGES["textFormat"])
    }
    assert what == {"kind": "Grow", "result": "Promoted", "candidate": "general", "layer_budget": "27"}
    assert 1.6e12 < float(sample["value"][1]) < 4e12  # milliseconds since 1970


def test_quality_stands_between_its_bounds_and_beside_its_target(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    low, quality, high, asked = (
        float(answers[f"Quality against target: {name}"][0]["value"][1])
        for name in ("low", "quality", "high", "asked")
    )
    assert 0.5 < low < quality < high < 1.2
    assert asked == 0.9


def test_variables_offer_what_is_there(answers: dict[str, list[dict[str, Any]]]) -> None:
    assert answers["namespace"] == [{"values": ["default"]}]
    assert answers["deployment"] == [{"values": ["chat"]}]


def test_the_example_of_keda_finds_the_load(answers: dict[str, list[dict[str, Any]]]) -> None:
    (sample,) = answers["keda"]
    assert float(sample["value"][1]) == 0.0  # everything is answered by now


def _of_keda() -> str:
    documents = yaml.safe_load_all((chart.ROOT / "examples/keda.yaml").read_text())
    (scaled,) = (each for each in documents if each["kind"] == "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def _labels(words: str) -> Iterator[str]:
    for part in words.split("{{")[1:]:
        yield part.partition("}}")[0]
