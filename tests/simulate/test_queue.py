"""The queue of a pod: its times are those of the timing law, and nothing is lost in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.simulate.queue import Law, Queue
from helios_operator.simulate.traffic import Request
from helios_operator.simulate.truth import MadeUpText
from helios_server.planning.timing import Workload, predict, step_ns

from tests.decide.truth import BIG

TEXT = MadeUpText("prose", 0.5, 0.5)
LAYERS, ISL, OSL = 24, 64, 48


def law(rows: int, tokens: int = 1_000_000) -> Law:
    return Law(BIG.fit(), LAYERS, "mlp", 128, rows, tokens)


class Pod:
    def __init__(self, rows: int, most_waiting: int = 1000, tokens: int = 1_000_000) -> None:
        self.ended: list[tuple[int, float, float]] = []
        self.refused: list[int] = []
        self.queue = Queue(
            law(rows, tokens),
            most_waiting,
            lambda request, first, end: self.ended.append((request.number, first, end)),
            lambda request: self.refused.append(request.number),
        )

    def come(self, number: int, at: float, prompt: int = ISL, output: int = OSL) -> None:
        self.queue.come(Request(number, at, prompt, output, TEXT), at)


def test_alone_a_request_lasts_what_the_law_says() -> None:
    pod = Pod(rows=4)
    pod.come(0, 10.0)
    pod.queue.advance(1000)
    ((_, first, end),) = pod.ended
    decode = step_ns(BIG.fit(), layers=LAYERS, rows=1, kv_tokens=ISL + OSL / 2, sampled=1, head_kind="mlp")
    assert end - first == pytest.approx((OSL - 1) * decode / 1e9, rel=1e-3)
    prefill = step_ns(BIG.fit(), layers=LAYERS, rows=ISL, kv_tokens=ISL, sampled=1, head_kind="mlp")
    assert first - 10.0 == pytest.approx(prefill / 1e9, rel=0.02)


@pytest.mark.parametrize("timed_rows", [0, 6])
def test_full_rows_come_to_the_predicted_throughput(timed_rows: int) -> None:
    """Of a law that is one line, and of one that was timed row by row."""
    rows, count = 8, 800
    fit = replace(BIG, timed_rows=timed_rows).fit()
    pod = Pod(rows)
    pod.queue.law = replace(law(rows), fit=fit, head_kind="bare")
    for number in range(count):
        pod.come(number, 0.0)
    pod.queue.advance(1e9)
    seen = count * OSL / max(end for _, _, end in pod.ended)
    workload = Workload(ISL, OSL)
    told = predict(fit, layers=LAYERS, head_kind="bare", batch=rows, workload=workload, step_tokens=128)
    assert seen == pytest.approx(told.tokens_per_second, rel=0.05)
    assert pod.queue.most_rows == rows


def test_looked_at_in_small_steps_or_at_once_it_is_the_same() -> None:
    often, once = Pod(2), Pod(2)
    for number in range(30):
        for pod in (often, once):
            pod.come(number, number * 0.3)
    for tick in range(4000):
        often.queue.advance(tick / 20)
    once.queue.advance(200)
    assert [n for n, _, _ in often.ended] == [n for n, _, _ in once.ended]
    assert len(once.ended) == 30
    for (_, *seen), (_, *told) in zip(often.ended, once.ended, strict=True):
        assert seen == pytest.approx(told)


def test_what_finds_no_place_is_refused_and_everything_is_accounted_for() -> None:
    pod = Pod(rows=1, most_waiting=2, tokens=200)
    for number in range(6):
        pod.come(number, 0.0)
    pod.come(6, 0.0, prompt=500)
    pod.queue.advance(1e9)
    assert [n for n, _, _ in pod.ended] == [0, 1, 2]
    assert pod.refused == [3, 4, 5, 6]
    assert pod.queue.idle


def test_keys_and_values_bound_the_rows() -> None:
    pod = Pod(rows=8, tokens=2 * (ISL + OSL))
    for number in range(6):
        pod.come(number, 0.0)
    pod.queue.advance(1e9)
    assert (pod.queue.most_rows, len(pod.ended)) == (2, 6)
