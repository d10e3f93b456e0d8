"""`bench.frontier`: the front, what is said of it, and what windows and rounds become."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helios_contract.serves import Precision
from helios_server.planning.combinations import Combination
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.environments import ROOT
from bench.frontier import front, law, page, plot
from bench.frontier.figures import Measured, claims, quality_claim
from bench.frontier.front import Point, name
from bench.frontier.runs import Served, reachable
from bench.frontier.subject import Subject
from bench.report import Claim

AUTO, BOTH = Precision(), Precision("int8", "int8")


def point(layers: int, precision: Precision, quality: float, rate: float) -> Point:
    return Point(layers, precision, {"prose": quality}, rows=4, tokens_per_second=rate)


# -- the front -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_no_point_of_the_front_is_dominated_and_every_other_is(points: list[tuple[int, int, int]]) -> None:
    found = front.front(points, lambda point: point)
    assert all(not dominates(other, one) for one in found for other in points)
    left_out = [one for one in points if one not in found]
    assert all(any(dominates(other, one) for other in found) for one in left_out)
    assert front.front(points[::-1], lambda point: point) == found[::-1]


def dominates(other: Sequence[int], one: Sequence[int]) -> bool:
    better = [theirs - mine for theirs, mine in zip(other, one, strict=True)]
    return min(better) >= 0 < max(better)


def test_each_depth_is_told_to_be_on_the_front_or_what_beats_it() -> None:
    points = [
        point(30, AUTO, 100.0, 100), point(30, BOTH, 99.9, 300), point(27, AUTO, 97.0, 120),
        point(27, BOTH, 96.9, 290), point(24, AUTO, 93.0, 150), point(24, BOTH, 92.9, 380),
    ]  # fmt: skip
    assert [name(each.key) for each in front.by_speed(points, "prose")] == [
        "30-auto-auto", "30-int8-int8", "24-int8-int8",
    ]  # fmt: skip
    twenty_seven, twenty_four = front.told(points, "prose")
    assert twenty_seven == (
        "prose: 27 layers are not on the front in any precision; the fastest of them, int8/int8 at 96.90 % "
        "with 290 tokens/s, is beaten by 30 layers in int8/int8: 99.90 % with 300 tokens/s"
    )
    assert twenty_four == "prose: 24 layers are on the front in int8/int8 at 92.90 %"


# -- figures -------------------------------------------------------------------------------------------------


def test_quality_is_a_ratio_of_totals_with_the_spread_of_its_windows() -> None:
    reference, found = [1000, 2000, 3000], [1250, 2500, 3750]
    even = quality_claim("prose", (24, AUTO), reference, found)
    assert (even.id, even.value, even.low, even.high) == ("quality-prose-24-auto-auto", 80.0, 80.0, 80.0)
    uneven = quality_claim("prose", (24, AUTO), reference, [1150, 2700, 3650])
    assert uneven.value == 80.0
    error = (80**2 + 160**2 + 80**2) ** 0.5 * (3 / 2) ** 0.5 / 7500  # what each window leaves of 80 per cent
    assert (80 - uneven.low, uneven.high - 80) == pytest.approx((196 * error, 196 * error), abs=1e-3)


def test_ratios_are_of_one_round_and_points_of_medians() -> None:
    full, small = (30, AUTO), (30, BOTH)
    quality = {
        "prose": {key: Claim(f"quality-prose-{name(key)}", 99.5, 99, 100, "percent") for key in (full, small)}
    }
    measured = Measured(quality, {full: 4, small: 12})
    measured.tokens_per_second |= {full: [100, 50, 100], small: [300, 100, 250]}
    measured.joules_per_token[small] = [0.02, 0.04, 0.03]
    found = {claim.id: claim for claim in claims(measured, full)}
    ratio = found["throughput-ratio-30-int8-int8"]
    assert (ratio.value, ratio.low, ratio.high) == (2.5, 2.0, 3.0)
    assert found["rows-ratio-30-int8-int8"].value == 3.0
    assert found["joules-per-token-30-int8-int8"].value == 0.03
    assert "throughput-ratio-30-auto-auto" not in found
    assert "joules-per-token-30-auto-auto" not in found
    published, both = measured.points()
    assert (published.tokens_per_second, published.rows, published.joules_per_token) == (100, 4, None)
    assert (both.tokens_per_second, both.rows, both.joules_per_token) == (250, 12, 0.03)


@pytest.mark.parametrize("name", ["front.svg", "front.png"])
def test_a_front_is_drawn(tmp_path: Path, name: str) -> None:
    plot.draw([point(30, AUTO, 100.0, 100), point(24, BOTH, 92.9, 380)], "SmolLM2, 400 MiB", tmp_path / name)
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_a_load_waits_for_no_more_rows_than_a_step_lets_in() -> None:
    """Prompts of 96 tokens for answers of 48 leave 43 of 128 to decoding rows."""
    subject = Subject("file:///m", "", (4,), (AUTO,), isl=96, osl=48)
    assert reachable(subject, 128) == 32
    assert reachable(replace(subject, isl=9600), 128) == 1


# -- the law and the page ------------------------------------------------------------------------------------


def test_how_far_processes_are_from_the_law_is_told_in_per_cent_of_rows() -> None:
    by_law = {
        (30, AUTO): combination(100, 6400),
        (24, BOTH): combination(300, 19200),
        (24, AUTO): combination(0, 0),
    }
    seen = {(30, AUTO): Served(98, 6272), (24, BOTH): Served(301, 19264), (24, AUTO): Served(0, 0)}
    found = {each.id: each for each in law.claims(500, by_law, seen)}
    off = found["rows-percent-off-the-law-in-500-mib"]
    assert (off.low, off.high, off.unit) == (pytest.approx(0.3333, abs=1e-3), 2.0, "percent")
    assert found["rows-off-the-law-in-500-mib"].high == 2
    nothing = {(24, AUTO): Served(0, 0)}
    assert "rows-percent-off-the-law-in-500-mib" not in {each.id for each in law.claims(500, by_law, nothing)}


def combination(rows: int, tokens: int) -> Combination:
    return Combination(30, "auto", "auto", 0, 64, tokens, rows, 0)


def test_the_page_says_what_memory_buys_and_which_depths_survive(tmp_path: Path) -> None:
    points = [
        point(30, AUTO, 100.0, 100), point(30, BOTH, 99.9, 300), point(27, BOTH, 97.0, 290),
        point(24, BOTH, 92.9, 380),
    ]  # fmt: skip
    points = [replace(each, rows=rows) for each, rows in zip(points, (4, 14, 16, 19), strict=True)]
    quality = {
        "prose": {
            each.key: Claim(f"quality-prose-{name(each.key)}", each.quality["prose"], 90, 100, "percent")
            for each in points
        }
    }
    measured = Measured(quality, {each.key: each.rows for each in points})
    measured.tokens_per_second |= {each.key: [each.tokens_per_second] for each in points}
    by_law = {each.key: combination(each.rows, 64 * each.rows) for each in points}
    seen = {each.key: Served(each.rows, 64 * each.rows, each.rows) for each in points}
    told = [*claims(measured, (30, AUTO)), *law.claims(400, by_law, seen)]
    figures = {
        "memoryMiB": [400],
        "model": "smollm2-135m",
        "tokensPerRequest": 144,
        "energySource": "",
        "points": [asdict(each) for each in measured.points()],
        "front": {"prose": [name(each.key) for each in front.by_speed(points, "prose")]},
        "rows": {400: law.side_by_side(by_law, seen)},
        "says": list(front.told(points, "prose")),
    }
    machine = {"cpu": "a processor", "cores": 2}
    result = {"figures": figures, "claims": [asdict(each) for each in told], "machine": machine}
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result | {"date": "2026-01-01", "command": "python -m bench.frontier"}))
    readme = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", readme)
    page.main(["--result", str(file), "--docs", str(tmp_path / "docs")])
    assert "(docs/pictures/frontier.svg)\n<!-- end of picture -->" in readme.read_text()
    page.main(["--result", str(tmp_path / "none.json"), "--docs", str(tmp_path / "docs")])
    assert "frontier.svg" not in readme.read_text()
    page.main(["--result", str(file), "--docs", str(tmp_path / "docs")])
    written = (tmp_path / "docs" / "frontier.md").read_text()
    assert "- 400 MiB: 30 layers as published hold 4 rows.\n" in written
    both = "- 30 layers in int8/int8 hold 14 rows, 3.5 times as many, at a quality of 99.90 % on prose.\n"
    assert both in written
    assert "- 24 layers in int8/int8 hold 19 rows, 4.8 times as many" in written
    assert "- 400 MiB: what processes plan is at most 0.0 % of the rows off the law.\n" in written
    assert "- prose: 24 layers are on the front in int8/int8 at 92.90 %.\n" in written
    assert "- prose: 27 layers are not on the front in any precision" in written
    assert "| 24 | int8 | int8 | **92.90 (90.00 to 100.00)** | 19 | 380 | 3.80 | - |" in written
    assert (tmp_path / "docs" / "pictures" / "frontier.svg").read_text().startswith("<?xml")


def test_without_a_result_the_page_says_so(tmp_path: Path) -> None:
    page.main(["--result", str(tmp_path / "none.json"), "--docs", str(tmp_path)])
    assert "No result is committed yet." in (tmp_path / "frontier.md").read_text()
