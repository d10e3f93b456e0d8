"""`bench.joint`: what loads on a real pod become, the front, and the page of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helios_contract.serves import Precision

from bench.frontier.front import Key, name
from bench.joint import curve
from bench.joint import page as section
from bench.joint.curve import Cell, Point
from bench.joint.load import Shape, capacity, offered, under
from bench.page import __main__ as writer
from bench.report import Claim
from bench.serve.doors import Access, Native
from bench.serve.load import ANSWERED, FAILED, REFUSED, TOLD_WHEN
from tests.checkpoints import make_checkpoint
from tests.rpc.pods import limits_for, serving
from tests.sizes import LONG

ROOT = Path(__file__).parents[2]
AUTO, BOTH = Precision(), Precision("int8", "int8")
FULL, SMALL, INT8 = (30, AUTO), (24, BOTH), (30, BOTH)


# -- loads ---------------------------------------------------------------------------------------------------


async def test_a_rate_is_offered_whatever_is_answered(tiny: Path) -> None:
    shape = Shape(isl=4, osl=3, seconds=0.5, threads=1)
    async with (
        serving(tiny, max_queue_size=400) as pod,
        Native(f"127.0.0.1:{pod.ports.port}", "chat", Access()) as door,
    ):
        slow, fast = [await offered(door, shape, rate, seed=3) for rate in (20.0, 200.0)]
    assert 0 < slow["sent"] < fast["sent"]
    for one in (slow, fast):
        assert one[ANSWERED] == one["sent"]
        assert 0 < one["ttft-p50"] <= one["ttft-p99"] <= one["e2e-p99"]


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: pods of their own take seconds each")
async def test_a_pod_is_started_with_the_limits_of_a_combination(tiny: Path) -> None:
    shape = Shape(isl=4, osl=3, seconds=0.5, threads=1)
    limits = limits_for(tiny, layer_budget=2)
    assert await capacity(limits, shape, callers=4) > 0
    first, second = await under(limits, shape, [(5.0, 1), (50.0, 2)])
    assert first["sent"] < second["sent"]


# -- the curve -----------------------------------------------------------------------------------------------


def measured(tokens: float, response: float, **others: float) -> dict[str, float]:
    ends = {TOLD_WHEN: 0.0, REFUSED: 0.0, FAILED: 0.0}
    return (
        ends
        | {
            "tokens-per-second": tokens,
            "e2e-p99": response,
            "ttft-p50": response / 10,
            "ttft-p99": response / 5,
        }
        | others
    )


QUALITY = {FULL: 100.0, INT8: 99.5, SMALL: 92.0}


def quality() -> dict[str, dict[Key, Claim]]:
    return {
        domain: {
            key: Claim(f"quality-{domain}-{name(key)}", share, share - 1, share + 1, "percent")
            for key, share in QUALITY.items()
        }
        for domain in ("prose", "code")
    }


def cells() -> list[Cell]:
    return [
        Cell(FULL, 1.0, 4.0, [measured(100, 900), measured(90, 1000), measured(95, 1400)]),
        Cell(INT8, 1.0, 4.0, [measured(110, 800), measured(120, 700), measured(115, 500)]),
        Cell(SMALL, 1.0, 4.0, [measured(110, 400), measured(120, 300), measured(100, 350)]),
        Cell(FULL, 1.6, 6.4, [measured(100, 9000, **{TOLD_WHEN: 2.0})]),
        Cell(INT8, 1.6, 6.4, [measured(130, 2000, **{FAILED: 1.0})]),
        Cell(SMALL, 1.6, 6.4, [measured(180, 600)]),
    ]


def points() -> list[Point]:
    return [cell.point({domain: by[cell.key].value for domain, by in quality().items()}) for cell in cells()]


def test_a_point_is_the_medians_of_its_rounds() -> None:
    first = points()[0]
    assert (first.tokens_per_second, first.response_p99_ms, first.ttft_ms) == (95, 1000, 100)
    assert (first.offered, first.quality) == (4.0, {"prose": 100.0, "code": 100.0})


def test_a_claim_has_the_spread_of_the_rounds_and_failures_are_all() -> None:
    found = {claim.id: claim for claim in curve.claims(cells(), quality())}
    p99 = found["e2e-p99-30-auto-auto-load-1"]
    assert (p99.value, p99.low, p99.high, p99.unit) == (1000, 900, 1400, "ms")
    assert found["quality-code-24-int8-int8"].low == 91
    assert found["refused-30-auto-auto-load-1.6"].value == 2
    assert found["failed"].value == 1


def test_the_front_weighs_quality_throughput_and_response_together() -> None:
    assert [point.key for point in curve.on_front(points(), 1.0)] == [FULL, INT8, SMALL]
    worse = [*points(), Point((27, AUTO), 1.0, 4.0, {"prose": 99.0, "code": 99.0}, 90, 2000, 1, 1)]
    assert (27, AUTO) not in {point.key for point in curve.on_front(worse, 1.0)}


def test_it_is_said_what_answers_soonest_at_which_quality() -> None:
    deep, small = "30 layers in int8/int8 answers soonest", "24 layers in int8/int8 answers soonest"
    assert list(curve.told(points())) == [
        f"load 1, 99 % or 95 % of quality asked: {deep}, p99 700 ms at 115 tokens/s",
        f"load 1, 90 % of quality asked: {small}, p99 350 ms at 110 tokens/s",
        f"load 1.6, 99 % or 95 % of quality asked: {deep}, p99 2000 ms at 130 tokens/s",
        f"load 1.6, 90 % of quality asked: {small}, p99 600 ms at 180 tokens/s",
    ]


# -- the page ------------------------------------------------------------------------------------------------


def test_the_page_has_a_table_a_load_and_a_picture_for_light_and_dark(tmp_path: Path) -> None:
    figures: dict[str, Any] = {
        "memoryMiB": 400,
        "model": "smollm2-135m",
        "requestsPerSecondAtLoad1": 4.0,
        "prompt": 96,
        "new": 48,
        "rows": {name(FULL): 4, name(INT8): 14, name(SMALL): 19},
        "points": [asdict(point) | {"name": "x"} for point in points()],
        "says": list(curve.told(points())),
    }
    document = {
        "command": "python -m bench.joint --output json",
        "date": "2026-11-29",
        "machine": {"cpu": "a processor", "cores": 2},
        "figures": figures,
        "claims": [asdict(each) for each in curve.claims(cells(), quality())],
    }
    kept = json.loads(json.dumps(document))
    page = writer.page({Path("joint-x.json"): kept})
    assert "## joint-x\n\nOffered load, layer budget and precision together" in page
    assert "Load 1 is 4.00 requests/s" in page
    assert "| 24, int8, int8 | 92.00 (91.00 to 93.00) | 92.00 (91.00 to 93.00) |" in page
    assert "| **30** | auto | auto | 4 | 95 (90 to 100) | 1000 (900 to 1400) | 100 (90 to 140) |" in page
    assert "Load 1.6, 6.40 requests/s offered:" in page
    assert "- load 1, 90 % of quality asked: 24 layers in int8/int8 answers soonest" in page
    assert "| `e2e-p99-24-int8-int8-load-1.6` | 600 |" in page
    section.draw(Path("joint-x.json"), kept, tmp_path)
    drawn = (tmp_path / "joint-x.svg").read_text()
    letters = re.findall(r"<text style=\"([^\"]*)\"", drawn)
    assert letters
    assert all("fill: #7d8590" in style for style in letters)


# -- the whole -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: four pods under two loads take a minute")
def test_it_runs_and_tells_its_claims(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "tiny", layers=6, max_position_embeddings=4096)
    options = ["--model", f"file://{model}", "--isl", "16", "--osl", "8", "--short", "--output", "json"]
    command = [sys.executable, "-m", "bench.joint", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    document = json.loads(ended.stdout)
    claims = {claim["id"]: claim["value"] for claim in document["claims"]}
    assert claims["failed"] == 0
    for key in ("6-auto-auto", "4-auto-auto", "6-int8-int8", "4-int8-int8"):
        assert claims[f"quality-prose-{key}"] > 0
        assert all(claims[f"e2e-p99-{key}-load-{load}"] > 0 for load in (0.6, 1.6))
