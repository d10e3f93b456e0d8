"""How much of one backbone in several precisions is in memory at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_contract.results import MemoryFacts
from helios_contract.serves import REFERENCE, Precision
from helios_server.errors import OutOfMemoryBudget
from helios_server.planning.memory import MIB
from helios_server.profile.extent import Extent, Outline, alone, together
from hypothesis import given
from hypothesis import strategies as st

FACTS = MemoryFacts(
    process_start_bytes=150 * MIB,
    fixed_bytes=56 * MIB,
    layer_bytes=7 * MIB,
    kv_bytes_per_token_layer=768,
    activation_bytes_per_token=40_000,
    row_bytes=200_000,
    step_tokens=256,
    page_tokens=16,
)
WHOLE = Outline(REFERENCE, FACTS, num_layers=30, context=2048, exit_bytes=5 * MIB)
SHORT = replace(
    WHOLE,
    precision=Precision("int8", "auto"),
    facts=replace(FACTS, fixed_bytes=28 * MIB, layer_bytes=int(3.5 * MIB)),
)


def taken(outline: Outline, extent: Extent) -> int:
    """Bytes beside the process's own, by the law's parts."""
    facts = outline.facts
    layers = facts.fixed_bytes + extent.layers * facts.layer_bytes + outline.exit_bytes
    kept = extent.tokens * extent.layers * facts.kv_bytes_per_token_layer
    rows = facts.step_tokens * facts.activation_bytes_per_token + extent.rows * facts.row_bytes
    return layers + kept + rows


@given(limit=st.integers(200, 4000), several=st.integers(1, 4))
def test_what_is_timed_together_fits_together_and_is_at_least_a_third_as_deep(
    limit: int, several: int
) -> None:
    outlines = [WHOLE, *(several - 1) * [SHORT]]
    try:
        by_itself = [alone(outline, limit * MIB) for outline in outlines]
    except OutOfMemoryBudget:
        return
    found = together(outlines, limit * MIB)
    if found is None:
        assert several > 1
        return
    own = FACTS.process_start_bytes
    assert own + sum(map(taken, outlines, found)) <= limit * MIB
    assert len({extent.layers for extent in found}) == 1
    for extent, single in zip(found, by_itself, strict=True):
        assert single.layers / 3 <= extent.layers <= single.layers
        assert min(each.rows for each in by_itself) <= extent.rows


def test_with_room_for_all_each_is_as_deep_as_alone() -> None:
    assert together([WHOLE, SHORT], 8000 * MIB) == (alone(WHOLE, 8000 * MIB), alone(SHORT, 8000 * MIB))


def test_memory_for_one_alone_times_them_one_by_one() -> None:
    assert together([WHOLE, SHORT], 240 * MIB) is None
    assert together([WHOLE], 240 * MIB) == (alone(WHOLE, 240 * MIB),)


def test_an_error_says_what_to_raise_or_to_lower() -> None:
    with pytest.raises(OutOfMemoryBudget, match=r"timing one layer takes \d+ MiB, 200 are given") as caught:
        alone(WHOLE, 200 * MIB)
    assert "lower the context of 2048 tokens" in caught.value.fix
