"""The timing law: what its fit finds again of planted durations, and what holds of it whatever was timed."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from helios_contract.results import HeadCost, StepTimeFit
from helios_server.planning.fitting import fit
from helios_server.planning.timing import StepPoint, step_ns
from helios_server.profile.workload import BATCHES, Room, Shape, shapes_to_check, shapes_to_fit
from hypothesis import given
from hypothesis import strategies as st

ROOM = Room(rows=128, tokens=8192, page_tokens=16, context=2048, chunk=128)
KINDS = {"bare": "", "affine": "sha256:1", "mlp": "sha256:2"}
LINE = StepTimeFit(900_000, 310_000, 2_100, 12, {"bare": HeadCost(700_000, 9_000)})


def table(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Nanoseconds at each batch: more rows never take less; some take no more."""
    first, more = st.integers(least, most), st.just(0) | st.integers(0, most)
    more_each = st.lists(more, min_size=len(BATCHES) - 1, max_size=len(BATCHES) - 1)
    return st.tuples(first, more_each).map(lambda drawn: tuple(accumulate([drawn[0], *drawn[1]])))


@st.composite
def laws(draw: st.DrawFn) -> StepTimeFit:
    own = HeadCost(0, draw(st.integers(0, 90_000)), draw(table(500_000, 3_000_000)))
    heads = {"bare": own}
    for kind in ("affine", "mlp"):
        more, per_row = draw(st.integers(0, 900_000)), draw(st.integers(0, 20_000))
        heads[kind] = HeadCost(more, own.per_row_ns + per_row)
    return StepTimeFit(
        step_ns=draw(st.integers(0, 2_000_000)),
        per_layer_ns=0,
        per_layer_row_ns=draw(st.integers(0, 50_000)),
        per_layer_kv_token_ns=draw(st.integers(10, 200)),
        heads=heads,
        at_rows=BATCHES,
        layer_at_ns=draw(table(50_000, 1_000_000)),
    )


def lasts(law: StepTimeFit, shape: Shape) -> float:
    return step_ns(
        law,
        layers=shape.layers,
        rows=shape.rows,
        kv_tokens=shape.kv_tokens,
        sampled=shape.decoding,
        head_kind=shape.head_kind,
    )


def planted(law: StepTimeFit, shape: Shape, noise: float = 1.0) -> StepPoint:
    """How long a step of that shape lasts on a machine that follows the law."""
    ns = lasts(law, shape) * noise
    return StepPoint(shape.layers, shape.rows, shape.kv_tokens, shape.decoding, shape.head_kind, ns)


SHAPES = shapes_to_fit(30, KINDS, ROOM)


@given(laws())
def test_a_fit_is_exact_where_steps_were_timed(law: StepTimeFit) -> None:
    found = fit([planted(law, shape) for shape in SHAPES])
    assert found.error_percent == 0
    for shape in SHAPES:
        assert lasts(found, shape) == pytest.approx(lasts(law, shape), rel=0.01)


@given(laws(), st.integers(1, 128), st.integers(1, 30))
def test_a_fit_knows_pairs_that_it_has_not_seen(law: StepTimeFit, rows: int, layers: int) -> None:
    """A machine that is straight between the batches is known everywhere."""
    found = fit([planted(law, shape) for shape in SHAPES])
    for shape in (Shape(layers, "bare", "", rows, 100), *shapes_to_check(30, ROOM)):
        assert lasts(found, shape) == pytest.approx(lasts(law, shape), rel=0.02)


@given(laws(), st.lists(st.floats(0.7, 1.4), min_size=len(SHAPES), max_size=len(SHAPES)), st.data())
def test_more_of_anything_never_takes_less(law: StepTimeFit, noise: list[float], data: st.DataObject) -> None:
    """Whatever noise was timed."""
    found = fit([planted(law, shape, each) for shape, each in zip(SHAPES, noise, strict=True)])
    rows, more = sorted(data.draw(st.tuples(st.floats(0.1, 300), st.floats(0.1, 300))))
    layers, deeper = sorted(data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30))))
    kind = data.draw(st.sampled_from(sorted(KINDS)))

    def of(layers: int, rows: float, sampled: float, context: float = 64) -> float:
        return step_ns(
            found, layers=layers, rows=rows, kv_tokens=rows * context, sampled=sampled, head_kind=kind
        )

    assert of(layers, rows, rows) <= of(layers, more, more) + 1
    assert of(layers, more, rows) <= of(layers, more, more) + 1
    assert of(layers, rows, rows) <= of(deeper, rows, rows) + 1
    assert of(layers, rows, rows) <= of(layers, rows, rows, 96) + 1
    assert of(layers, rows, 0) <= of(layers, rows, rows)


@given(laws(), st.floats(1, 128))
def test_between_two_batches_a_step_lies_between_theirs(law: StepTimeFit, rows: float) -> None:
    below, above = next((a, b) for a, b in pairwise(BATCHES) if a <= rows <= b)
    ends = [step_ns(law, layers=24, rows=r, kv_tokens=0, sampled=r, head_kind="mlp") for r in (below, above)]
    found = step_ns(law, layers=24, rows=rows, kv_tokens=0, sampled=rows, head_kind="mlp")
    assert ends[0] - 1 <= found <= ends[1] + 1


def test_part_of_a_row_takes_what_one_does() -> None:
    law = replace(LINE, at_rows=(1, 8), layer_at_ns=(400_000, 500_000))
    one, part = (
        step_ns(law, layers=2, rows=rows, kv_tokens=0, sampled=0, head_kind="bare") for rows in (1, 0.2)
    )
    assert one == part == 900_000 + 2 * 400_000


def test_beyond_what_was_timed_the_line_goes_on() -> None:
    heads = {"bare": HeadCost(700_000, 9_000, (710_000, 800_000))}
    law = replace(LINE, at_rows=(1, 8, 32), layer_at_ns=(400_000, 500_000, 800_000), heads=heads)
    assert law.timed_rows == 8
    found = step_ns(law, layers=2, rows=40, kv_tokens=0, sampled=40, head_kind="bare")
    assert found == 900_000 + 2 * (800_000 + 8 * 2_100) + 800_000 + 32 * 9_000


def test_a_row_of_an_earlier_release_is_a_straight_line() -> None:
    assert LINE.timed_rows == 0
    found = step_ns(LINE, layers=2, rows=40, kv_tokens=100, sampled=40, head_kind="bare")
    assert found == 900_000 + 2 * (310_000 + 40 * 2_100 + 100 * 12) + 700_000 + 40 * 9_000


def test_what_an_earlier_release_reads_is_the_line_through_the_ends() -> None:
    heads = {"bare": LINE.heads["bare"], "mlp": HeadCost(900_000, 9_500)}
    law = replace(LINE, heads=heads)
    found = fit([planted(law, shape) for shape in shapes_to_fit(30, {"bare": "", "mlp": "x"}, ROOM)])
    assert found.per_layer_ns == pytest.approx(310_000, rel=0.01)
    assert found.per_layer_row_ns == pytest.approx(2_100, rel=0.01)
    assert found.per_layer_kv_token_ns == 12
    assert found.heads["mlp"].base_ns - found.heads["bare"].base_ns == pytest.approx(200_000, rel=0.05)
    old = replace(found, at_rows=(), layer_at_ns=(), heads={
        kind: replace(cost, at_ns=()) for kind, cost in found.heads.items()
    })  # fmt: skip
    for shape in shapes_to_check(30, ROOM):
        assert lasts(old, shape) == pytest.approx(lasts(law, shape), rel=0.02)


@pytest.mark.parametrize("deepest", [1, 2, 30])
@pytest.mark.parametrize("rows", [1, 4, 20, 40])
def test_little_memory_leaves_few_batches_and_a_law(deepest: int, rows: int) -> None:
    room = Room(rows, rows * 64, 16, 256, 128)
    shapes = shapes_to_fit(deepest, KINDS, room)
    found = fit([planted(LINE_OF_KINDS, shape) for shape in shapes])
    assert found.timed_rows == rows
    for shape in shapes:
        assert lasts(found, shape) == pytest.approx(lasts(LINE_OF_KINDS, shape), rel=0.02)


LINE_OF_KINDS = replace(LINE, heads=dict.fromkeys(KINDS, HeadCost(700_000, 9_000)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"at_rows": (1, 4, 2), "layer_at_ns": (1, 2, 3)}, "atRows"),
        ({"at_rows": (0, 4), "layer_at_ns": (1, 2)}, "atRows"),
        ({"at_rows": (1, 4), "layer_at_ns": (1,)}, "layerAtNs has 1 figures"),
        ({"heads": {"bare": HeadCost(1, 1, (3,))}}, r"head\.bare\.atNs has 1 figures"),
    ],
)
def test_figures_that_do_not_belong_to_rows_are_named(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(LINE, **changed)
