"""The ring of live prompts: what is kept, when a set is frozen, and what consent withdrawn leaves."""

from __future__ import annotations

import itertools

from helios_server.telemetry import prompts as module
from helios_server.telemetry.prompts import prompts_digest


def ring(size: int) -> module.LivePrompts:
    """One for which a new set is always due, and none in use for long."""
    return module.LivePrompts(size, itertools.count(0.0, 1000.0).__next__)


def serve(prompts: module.LivePrompts, first: int, last: int, tokens: int = 20) -> None:
    for ordinal in range(first, last + 1):
        prompts.add(ordinal, tokens, lambda ordinal=ordinal: f"prompt {ordinal}")  # type: ignore[misc]


def test_nothing_is_kept_or_even_read_without_consent() -> None:
    prompts = ring(0)
    prompts.alarmed(0)
    prompts.add(1, 20, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert prompts.newest is None


def test_the_first_full_ring_freezes_and_then_only_new_prompts_do() -> None:
    prompts = ring(4)
    serve(prompts, 1, 3)
    assert prompts.newest is None
    serve(prompts, 4, 4)
    first = prompts.newest
    assert first is not None
    assert (first.from_request, first.to_request, len(first.prompts)) == (1, 4, 4)
    serve(prompts, 5, 7)
    assert prompts.newest == first
    serve(prompts, 8, 8)
    assert prompts.newest is not None
    assert prompts.newest.prompts == tuple(f"prompt {i}" for i in range(5, 9))


def test_an_alarm_freezes_what_came_later_as_soon_as_it_suffices() -> None:
    prompts = ring(64)
    serve(prompts, 1, 64)
    prompts.alarmed(60)
    assert prompts.newest is not None
    assert prompts.newest.to_request == 64
    serve(prompts, 65, 75)
    assert prompts.newest.from_request == 1
    serve(prompts, 76, 76)
    assert (prompts.newest.from_request, prompts.newest.to_request) == (61, 76)
    prompts.alarmed(60)  # seen again at every look: answered already
    serve(prompts, 77, 80)
    assert prompts.newest.to_request == 76


def test_an_alarm_over_prompts_that_are_there_freezes_at_once() -> None:
    prompts = ring(64)
    serve(prompts, 1, 100)
    prompts.alarmed(70)
    assert prompts.newest is not None
    assert (prompts.newest.from_request, prompts.newest.to_request) == (71, 100)


def test_a_small_ring_answers_an_alarm_with_what_it_holds() -> None:
    prompts = ring(5)
    serve(prompts, 1, 5)
    prompts.alarmed(5)
    serve(prompts, 6, 10)
    assert prompts.newest is not None
    assert (prompts.newest.from_request, len(prompts.newest.prompts)) == (6, 5)


def test_a_shift_that_alarms_again_and_again_is_answered_once_until_the_ring_has_turned() -> None:
    prompts = ring(32)
    serve(prompts, 1, 32)
    sets = []
    for ordinal in range(33, 97):
        prompts.alarmed(ordinal - 2)
        serve(prompts, ordinal, ordinal)
        assert prompts.newest is not None
        if prompts.newest not in sets:
            sets.append(prompts.newest)
    assert [(frozen.from_request, frozen.to_request) for frozen in sets] == [
        (1, 32),
        (32, 47),
        (48, 79),
        (79, 94),
    ]


def test_after_a_change_of_limits_the_next_alarm_is_answered() -> None:
    prompts = ring(32)
    serve(prompts, 1, 32)
    prompts.alarmed(30)
    serve(prompts, 33, 46)
    prompts.resize(32)
    prompts.alarmed(46)
    serve(prompts, 47, 62)
    assert prompts.newest is not None
    assert (prompts.newest.from_request, prompts.newest.to_request) == (47, 62)


def test_the_newest_sets_are_kept_by_digest() -> None:
    prompts = ring(2)
    digests = []
    for start in range(1, 27, 2):
        serve(prompts, start, start + 1)
        assert prompts.newest is not None
        digests.append(prompts.newest.digest)
    assert prompts.get(digests[0]) is None
    kept = prompts.get(digests[1])
    assert kept is not None
    assert kept.digest == prompts_digest(kept.prompts) == digests[1]
    assert prompts.get("") == prompts.newest


def test_much_traffic_does_not_push_a_set_out_before_a_job_comes_for_it() -> None:
    now = 0.0
    prompts = module.LivePrompts(4, lambda: now)
    serve(prompts, 1, 4)
    told = prompts.newest
    assert told is not None
    for second in range(120):
        now += 1.0
        serve(prompts, 5 + 100 * second, 104 + 100 * second)
    assert prompts.get(told.digest) == told
    for second in range(120, 720):  # it was fetched, so the next backbone's Job finds it too
        now += 1.0
        serve(prompts, 5 + 100 * second, 104 + 100 * second)
    assert prompts.get(told.digest) == told
    for second in range(720, 1800):
        now += 1.0
        serve(prompts, 5 + 100 * second, 104 + 100 * second)
    assert prompts.get(told.digest) is None
    assert len(prompts._sets) == 12


def test_a_change_of_limits_wants_new_prompts_at_once() -> None:
    now = 0.0
    prompts = module.LivePrompts(4, lambda: now)
    serve(prompts, 1, 20)
    assert prompts.newest is not None
    assert prompts.newest.to_request == 4
    prompts.resize(4)
    serve(prompts, 21, 21)
    assert (prompts.newest.from_request, prompts.newest.to_request) == (18, 21)


def test_withdrawn_consent_forgets_everything() -> None:
    prompts = ring(2)
    serve(prompts, 1, 2)
    prompts.resize(0)
    assert prompts.newest is None
    serve(prompts, 3, 9)
    prompts.resize(2)
    assert prompts.newest is None


def test_prompts_too_short_to_be_scored_are_passed_over() -> None:
    prompts = ring(1)
    serve(prompts, 1, 1, tokens=7)
    assert prompts.newest is None


def test_the_digest_is_the_one_that_the_operator_computes() -> None:
    from helios_operator.api.identity import prompts_digest as operators

    texts = ["Ein schöner Tag", 'quotes " and \\ and \n', "\U0001f600"]
    assert prompts_digest(texts) == operators(texts)
