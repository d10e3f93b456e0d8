"""`bench.engine`: the order of measurements, what seconds become, and its section of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine import figures, page, quiet, texts
from bench.engine.cells import Cell, Schedule
from bench.engine.figures import Measured, Times

CELL = Cell(prompt=64, new=49, batch=8)
OURS, THEIRS, SLOW, SMALL = "helios:float16", "openvino:fp16", "vllm:bfloat16", "openvino:int8"
BITS = {OURS: 16, THEIRS: 16, SLOW: 32, SMALL: 8}


def measured() -> Measured:
    """Three rounds; the second failed on one side, and the third found the machine half as fast."""
    rounds: list[dict[str, Times | None]] = [
        {OURS: Times(1, 2), THEIRS: Times(1, 3), SLOW: Times(2, 9), SMALL: Times(1, 2)},
        {OURS: Times(1, 2), THEIRS: None, SLOW: Times(2, 9), SMALL: Times(1, 2)},
        {OURS: Times(2, 4), THEIRS: Times(2, 5), SLOW: Times(4, 18), SMALL: Times(1, 2)},
    ]
    return Measured(CELL, rounds)


# -- figures -------------------------------------------------------------------------------------------------


def test_seconds_become_tokens_a_second() -> None:
    found = {claim.id: claim for claim in figures.speeds([measured()])}
    assert found["decode-64-49-batch-8-helios-float16"].value == 8 * 48 / 1
    assert found["decode-64-49-batch-8-helios-float16"].low == 8 * 48 / 2
    assert found["end-to-end-64-49-batch-8-helios-float16"].value == 8 * 49 / 2
    assert found["prefill-64-49-batch-8-openvino-fp16"].high == 8 * 64 / 1


def test_ratios_are_of_one_round_each_and_of_the_best_of_the_class() -> None:
    [decode, end_to_end, _] = figures.ratios([measured()], BITS)
    assert decode.id == "decode-64-49-batch-8-16-bit-helios-float16-over-openvino-fp16"
    assert (decode.low, decode.high) == (1.5, 2)
    assert end_to_end.low == 1.25


def test_without_one_of_ours_or_theirs_there_is_no_ratio() -> None:
    assert list(figures.ratios([measured()], {OURS: 16})) == []
    assert list(figures.ratios([measured()], {SMALL: 8, THEIRS: 16})) == []


def test_quality_is_in_percent_of_the_reference() -> None:
    bits = {"transformers:float32": {"prose": 1.0}, OURS: {"prose": 1.25}}
    found = {claim.id: claim.value for claim in figures.quality(bits, "transformers:float32")}
    assert found["quality-prose-helios-float16"] == 80
    assert found["bits-per-byte-prose-helios-float16"] == 1.25


def test_the_roofline_counts_weights_and_keys_and_values() -> None:
    reads = figures.Reads(parameters=1000, key_values=2)
    alone = Measured(Cell(4, 3, 1), [{OURS: Times(1, 3), SMALL: Times(1, 3)}])
    assert reads.bytes(alone.cell, 16) == 2000 + 5.5 * 2 * 2
    assert reads.bytes(alone.cell, 8) == 1000 + 5.5 * 2 * 2
    [ours, small] = figures.rooflines([alone, measured()], {OURS: 16, SMALL: 8}, reads, bandwidth=4044.0)
    assert (ours.value, small.value) == (0.5, pytest.approx(1022 / 4044, abs=1e-4))


def test_bare_products_are_told_in_gigabytes_a_second() -> None:
    found = {claim.id: claim.value for claim in figures.bare({OURS: {"memory": 5e10, "cache": 1.2e11}})}
    assert found == {"bare-products-memory-helios-float16": 50, "bare-products-cache-helios-float16": 120}


# -- the order -----------------------------------------------------------------------------------------------

Costs = st.dictionaries(
    st.builds(Cell, st.just(64), st.just(48), st.integers(1, 64)), st.floats(0.1, 50), min_size=1
)


@given(Costs, st.integers(1, 4), st.floats(1, 300))
def test_cells_get_their_rounds_while_there_is_time(
    costs: dict[Cell, float], rounds: int, seconds: float
) -> None:
    schedule, spent, last = Schedule(list(costs), rounds, seconds), 0.0, 0.0
    while cell := schedule.next():
        assert schedule.done(cell) < rounds
        last = costs[cell]
        spent += last
        schedule.took(cell, last)
    assert spent - last <= seconds  # what was begun within the time may end after it
    for cell in costs:
        enough = schedule.done(cell) == rounds or spent + costs[cell] > seconds
        assert enough or cell in schedule.left_out()  # not measured yet: what it costs was a guess


def test_dear_cells_come_last() -> None:
    cheap, dear = Cell(64, 48, 1), Cell(512, 128, 64)
    schedule, order = Schedule([dear, cheap], 3, 1000), []
    while cell := schedule.next():
        order.append(cell)
        schedule.took(cell, 1 if cell == cheap else 400)
    assert order == [cheap, cheap, cheap, dear, dear]


# -- what is given -------------------------------------------------------------------------------------------


def test_prompts_are_the_same_for_all_and_other_ones_each_time() -> None:
    first = texts.prompts(CELL, 0, "first", 320)
    assert first == texts.prompts(CELL, 0, "first", 320)
    assert {len(row) for row in first} == {64}
    assert len({tuple(row[:16]) for row in first + texts.prompts(CELL, 0, "whole", 320)}) == 16


@pytest.mark.parametrize(
    ("others", "got", "words"),
    [(50.0, 99.9, "others use 50 %"), (0.4, 60.0, "gets 60 % of it"), (0.4, 99.9, None)],
)
def test_a_busy_machine_is_refused(others: float, got: float, words: str | None) -> None:
    why = quiet.objection({"othersPercent": others, "gotPercent": got})
    assert why is None if words is None else words in str(why)


# -- the page ------------------------------------------------------------------------------------------------


def result() -> dict[str, object]:
    claims = [*figures.ratios([measured()], BITS), *figures.speeds([measured()])]
    claims += figures.quality({OURS: {"prose": 1.25}}, OURS)
    about = {"title": "T", "numerics": "sixteen bits", "heldToIsa": True, "errors": {}}
    failed = about | {"errors": {"start": "no wheel"}}
    return {
        "command": "python -m bench.engine",
        "date": "2026-11-29",
        "machine": {"cpu": "AMD EPYC", "cores": 2},
        "claims": [vars(claim) for claim in claims],
        "figures": {
            "model": "smollm2-135m",
            "threads": 2,
            "isa": "avx2",
            "processor": ["avx2"],
            "contenders": {OURS: about | {"title": "HELIOS"}, THEIRS: about, SLOW: failed},
            "cells": [vars(CELL) | {"secondsFirstAndWhole": [{}], "errors": {SLOW: "did not answer"}}],
            "scored": {"prose": {}},
            "bitsPerByte": {OURS: {"prose": 1.25}},
            "millisecondsOfAStep": {OURS: {"8": {"layers": 3.0, "step": 4.0}}},
            "bareProductsBytesPerSecond": {OURS: {"memory": 52.4e9, "cache": 110.2e9}},
            "leftOut": ["64-49-batch-64"],
        },
    }


def test_a_page_shows_speed_quality_and_who_failed() -> None:
    shown = "\n".join(page.section(Path("engine-x.json"), result()))
    assert "### AMD EPYC, held to AVX2" in shown
    assert "| HELIOS float16 | 384 (192 to 384) |" in shown
    assert "| decode | 16-bit | 1.75 (1.50 to 2.00), openvino-fp16 |" in shown
    assert "| HELIOS float16 | 1.2500 (100.00 %) | sixteen bits |" in shown
    assert "| HELIOS float16 | 8 | 3.00 | 4.00 |" in shown
    assert "alone, from memory and from a cache: HELIOS float16 52 and 110 GB/s." in shown
    assert "- T bfloat16, start: no wheel" in shown
    assert "- T bfloat16, 64/49 at batch 8: did not answer" in shown
    assert "Left out, for want of time: 64-49-batch-64." in shown
