"""Audits equal a direct pass over the same prompts, whatever depth they started from and whatever runs beside
them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_contract.haste import hastened
from helios_contract.limits import Audit, Baseline
from helios_contract.serves import Bundle
from helios_contract.telemetry import AuditRow
from helios_server.engine.audit import MAX_TOKENS, chosen
from helios_server.engine.audit_batch import AuditBatch
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.exits.head import BareHead
from helios_server.exits.scoring import score
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from helios_server.models.tokenizer import Tokenizer

from tests.engine.bundles import random_bundle
from tests.engine.helpers import limits_for, prompt_of, running, send

EXITS = (2, 4)
BARE = Bundle("bare", "", "")


@pytest.fixture(scope="module")
def bundles(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    folder = tmp_path_factory.mktemp("audited")
    return BARE, random_bundle(folder / "both", tiny, EXITS, 1), random_bundle(folder / "one", tiny, (4,), 2)


@torch.inference_mode()
def direct(
    model: Path, prompt: tuple[int, ...], bundles: tuple[Bundle, ...], dtype: str = "float64"
) -> AuditRow:
    """The whole prompt through the whole model at once."""
    backbone = Backbone.load(Checkpoint.open(model), 6, dtype=dtype)
    step = whole_sequences(backbone.layout, [len(prompt)])
    targets = torch.tensor(prompt[1:])
    hidden, below, states = backbone.embed(torch.tensor(prompt), torch.arange(len(prompt))), 0, {}
    for layer in (*EXITS, 6):
        hidden = backbone.run_layers(hidden, below, layer, step)
        states[layer], below = hidden[:-1].clone(), layer
    full = score(backbone, backbone.final_norm, states[6], targets)
    exits = {}
    for bundle in bundles:
        for layer in EXITS:
            ref = BundleRef(bundle.uri, bundle.digest)
            head = (
                open_bundle(ref, backbone.checkpoint).head(layer, backbone)
                if bundle.uri
                else BareHead(backbone)
            )
            scores = score(backbone, head.apply, states[layer], targets)
            bits, same = round(1000 * float(scores.bits.sum())), int((scores.top == full.top).sum())
            exits[bundle.digest, layer] = bits, same
    text_bytes = Tokenizer.open(model).bytes_of(prompt[1:])
    return AuditRow(0, len(prompt) - 1, text_bytes, round(1000 * float(full.bits.sum())), exits)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def audits(engine: Engine, count: int) -> dict[int, AuditRow]:
    """By ordinal, once `count` of them are complete."""
    wait_for(lambda: len(engine.telemetry().audits) >= count)
    return {row.request: row for row in engine.telemetry().audits}


@pytest.mark.parametrize("budget", [2, 4, 6])
def test_rows_equal_a_direct_pass(tiny: Path, bundles: tuple[Bundle, ...], budget: int) -> None:
    """Prompts longer and shorter than a step, in a crowd, in chunks, audited in two batches."""
    config = EngineConfig(dtype="float64", max_context=256, step_tokens=40)
    prompts = [
        prompt_of(length, seed) for seed, length in enumerate((8, 12, 100, 31, 9, 60, 17, 150, 40, 33, 64))
    ]
    limits = {"layer_budget": budget, "exit_layers": EXITS, "audit": Audit(100, bundles)}
    with running(tiny, config, **limits) as engine:
        for prompt in prompts:
            send(engine, prompt, max_tokens=20, ignore_eos=True)
        rows = audits(engine, len(prompts))
    for ordinal, prompt in enumerate(prompts, start=1):
        assert rows[ordinal] == replace(direct(tiny, prompt, bundles), request=ordinal)


def test_a_preempted_prompt_is_audited_once_and_right(tiny: Path, bundles: tuple[Bundle, ...]) -> None:
    limits = {"layer_budget": 4, "exit_layers": EXITS, "audit": Audit(100, bundles)}
    prompts = [prompt_of(40 + i, i) for i in range(6)]
    with running(tiny, EngineConfig(dtype="float64", max_context=96, step_tokens=16), **limits) as engine:
        engine.at_boundary(lambda: engine.serving.resize(12)).result()
        for stream in [send(engine, prompt, max_tokens=50, ignore_eos=True) for prompt in prompts]:
            stream.result()
        rows = audits(engine, len(prompts))
        telemetry = engine.telemetry()
    assert telemetry.preemptions > 0
    assert len(telemetry.audits) == len(prompts)
    for ordinal, prompt in enumerate(prompts, start=1):
        assert rows[ordinal] == replace(direct(tiny, prompt, bundles), request=ordinal)


def test_a_request_below_the_budget_is_audited_at_all_exits(tiny: Path, bundles: tuple[Bundle, ...]) -> None:
    limits = {"exit_layers": EXITS, "audit": Audit(100, bundles)}
    with running(tiny, **limits) as engine:
        send(engine, prompt_of(30), depth=2, max_tokens=5)
        assert audits(engine, 1)[1] == replace(direct(tiny, prompt_of(30), bundles), request=1)


def test_changes_under_audits_do_not_spoil_them(tiny: Path, bundles: tuple[Bundle, ...]) -> None:
    base = {"exit_layers": EXITS, "audit": Audit(100, bundles)}
    prompts = [prompt_of(20 + i, i) for i in range(24)]
    with running(tiny, **base) as engine:
        for generation, budget in enumerate((2, 6, 4), start=2):
            streams = [send(engine, prompt, max_tokens=3) for prompt in prompts[8 * generation - 16 :][:8]]
            for stream in streams:
                stream.result()
            engine.set_limits(limits_for(tiny, generation=generation, layer_budget=budget, **base)).result(60)
        rows = audits(engine, 20)
    for ordinal, row in rows.items():
        assert row == replace(direct(tiny, prompts[ordinal - 1], bundles), request=ordinal)


def test_only_long_enough_prompts_are_audited_and_long_ones_in_part(tiny: Path) -> None:
    limits = {"exit_layers": EXITS, "audit": Audit(100)}
    config = EngineConfig(dtype="float32", max_context=512)
    with running(tiny, config, **limits) as engine:
        send(engine, prompt_of(7), max_tokens=2).result()
        send(engine, prompt_of(510), max_tokens=2).result()
        row = audits(engine, 1)[2]
    assert row.tokens == min(510, MAX_TOKENS) - 1
    assert set(row.exits) == {("", 2), ("", 4)}


@pytest.mark.parametrize("percent", [0, 1, 5, 37, 50, 100])
def test_the_share_audited_is_the_share_asked(percent: int) -> None:
    picked = [ordinal for ordinal in range(1, 10001) if chosen(ordinal, percent)]
    assert len(picked) == pytest.approx(100 * percent, abs=3)
    even = sum(ordinal % 2 == 0 for ordinal in picked)
    assert even == pytest.approx(len(picked) / 2, rel=0.05, abs=3)


def test_after_a_shift_more_prompts_are_audited_until_there_are_enough(tiny: Path) -> None:
    """What was drawn before stays drawn: the larger share holds the smaller one."""
    percent, sent = 5, 260
    audit = Audit(percent, confidence=Baseline(0.99, 0.02))  # which this model never is
    with running(tiny, layer_budget=4, exit_layers=EXITS, audit=audit) as engine:
        for ordinal in range(sent):
            send(engine, prompt_of(12, ordinal), max_tokens=2).result()
        last = max(ordinal for ordinal in range(1, sent + 1) if chosen(ordinal, percent))
        wait_for(lambda: last in audits(engine, 1))
        rows = audits(engine, 1)
        called = engine.telemetry().alarms[0].at_request
    early = [ordinal for ordinal in rows if ordinal <= called]
    late = [ordinal for ordinal in rows if ordinal > 160]
    assert called < 10
    assert early == [ordinal for ordinal in range(1, called + 1) if chosen(ordinal, percent)]
    assert late == [ordinal for ordinal in range(161, sent + 1) if chosen(ordinal, percent)]
    hasty = [ordinal for ordinal in rows if called < ordinal < 80]
    assert hasty == [ordinal for ordinal in range(called + 1, 80) if chosen(ordinal, hastened(percent))]


def test_without_a_share_nothing_is_audited(tiny: Path) -> None:
    with running(tiny, exit_layers=EXITS) as engine:
        send(engine, prompt_of(30), max_tokens=5).result()
        assert engine.telemetry().audits == ()


# -- layers that are not loaded ------------------------------------------------------------------------------

_openers: list[tuple[str, str]] | None = None


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _openers is not None:
        _openers.append((threading.current_thread().name, str(arguments[0])))


sys.addaudithook(_note_opening)  # for good: a hook cannot be taken back


@contextmanager
def openings() -> Iterator[list[tuple[str, str]]]:
    """Every file that is opened meanwhile: by which thread, and its path."""
    global _openers
    _openers = []
    try:
        yield _openers
    finally:
        _openers = None


def test_steps_and_audits_open_no_file(tiny: Path, bundles: tuple[Bundle, ...]) -> None:
    limits = {"layer_budget": 2, "exit_layers": EXITS, "audit": Audit(100, bundles)}
    with running(tiny, **limits) as engine:
        send(engine, prompt_of(20), max_tokens=2).result()
        audits(engine, 1)  # what is imported at first use is imported now
        with openings() as opened:
            for seed in range(1, 5):
                send(engine, prompt_of(30, seed), max_tokens=10, ignore_eos=True).result()
            audits(engine, 5)
    readers = {thread.rstrip("_0123456789") for thread, path in opened if str(tiny) in path}
    assert readers == {"helios-audit-reads"}
    assert not [path for thread, path in opened if thread == "helios-engine"]


def test_steps_go_on_while_a_volume_is_slow(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, entered, let = Checkpoint.layer_tensors, threading.Event(), threading.Event()

    def slowly(self: Checkpoint, layer: int) -> dict[str, torch.Tensor]:
        entered.set()
        assert let.wait(240)
        return real(self, layer)

    with running(tiny, layer_budget=2, exit_layers=EXITS, audit=Audit(100, (BARE,))) as engine:
        monkeypatch.setattr(Checkpoint, "layer_tensors", slowly)
        send(engine, prompt_of(30), max_tokens=3).result()
        assert entered.wait(240)
        for seed in range(3):
            assert send(engine, prompt_of(9, seed), max_tokens=100, ignore_eos=True).result()
        wait_for(lambda: engine.seconds_since_step == 0)  # asleep: it does not spin until the layer is there
        limits = limits_for(tiny, generation=2, layer_budget=4, exit_layers=EXITS, audit=Audit(100, (BARE,)))
        change = engine.set_limits(limits)  # reads layers as well
        assert engine.telemetry().audits == ()
        let.set()
        change.result(60)
        assert audits(engine, 4)[1] == replace(direct(tiny, prompt_of(30), (BARE,)), request=1)


def test_one_layer_that_is_not_loaded_is_held_at_a_time(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = set[int](), list[int]()
    load, run = Backbone.load_layer, AuditBatch._run_layer

    def loaded(self: Backbone, index: int) -> object:
        held.add(index)
        most.append(len(held))
        return load(self, index)

    def ran(self: AuditBatch, layer: object, hidden: torch.Tensor) -> object:
        yield from run(self, layer, hidden)  # type: ignore[arg-type]
        held.discard(layer.index)  # type: ignore[attr-defined]

    with running(tiny, layer_budget=2, exit_layers=EXITS, audit=Audit(100, (BARE,))) as engine:
        monkeypatch.setattr(Backbone, "load_layer", loaded)
        monkeypatch.setattr(AuditBatch, "_run_layer", ran)
        for seed in range(3):
            send(engine, prompt_of(200, seed), max_tokens=3).result()
        audits(engine, 3)
    assert set(most) == {1}
    assert len(most) >= 4


def test_an_exchange_waits_for_a_layer_that_is_being_read(
    tiny: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process holds is measured anew: nothing of the old model may be on its way by then."""
    real, order, entered, let = Checkpoint.layer_tensors, list[str](), threading.Event(), threading.Event()

    def slowly(self: Checkpoint, layer: int) -> dict[str, torch.Tensor]:
        if threading.current_thread().name.startswith("helios-audit-reads"):
            entered.set()
            assert let.wait(240)
            order.append("read")
        else:
            order.append("loaded")
        return real(self, layer)

    with running(tiny, layer_budget=2, exit_layers=EXITS, audit=Audit(100, (BARE,))) as engine:
        monkeypatch.setattr(Checkpoint, "layer_tensors", slowly)
        send(engine, prompt_of(30), max_tokens=3).result()
        assert entered.wait(240)
        future = engine.set_limits(limits_for(other, generation=2))
        wait_for(lambda: engine.serving.runner is None)
        let.set()
        future.result(60)
        assert order[:2] == ["read", "loaded"]
        assert engine.telemetry().audits == ()
        assert engine.audits_skipped == 0
