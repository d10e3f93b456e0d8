"""What audits of a quantised model compare with: the model as published, as often as CPU time allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_contract.limits import Audit, Baseline
from helios_contract.serves import Bundle, Precision
from helios_contract.telemetry import AuditRow
from helios_server.engine import audit
from helios_server.engine.audit import audit_bytes
from helios_server.engine.audit_batch import AuditBatch
from helios_server.engine.cpu_share import SHARE, CpuShare
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scores import PartialScores
from helios_server.engine.watch import ExitInUse, Watch
from helios_server.exits.scoring import score
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from helios_server.models.tokenizer import Tokenizer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.checkpoints import FAMILIES, make_checkpoint
from tests.engine.helpers import limits_for, prompt_of, running, send
from tests.engine.natives import TORCH, computing_with
from tests.engine.oracle import Library
from tests.engine.test_audit import audits, wait_for
from tests.models.test_published import publish
from tests.native.libraries import kernels, names

EXITS = (2, 4)
PROMPTS = [prompt_of(length, seed) for seed, length in enumerate((40, 9, 77, 31, 150, 12, 25, 60))]
"""As many as a batch takes: it begins when the last one is there."""
BOTH, KEYS = Precision("int8", "int8"), Precision("auto", "int8")


def limits(precision: Precision, **others: object) -> dict[str, object]:
    held = {"weight_dtype": precision.weight_dtype, "kv_cache_dtype": precision.kv_cache_dtype}
    return {"exit_layers": EXITS, "audit": Audit(100, (Bundle("bare", "", ""),)), **held, **others}


@torch.inference_mode()
def direct(
    model: Path, prompt: tuple[int, ...], dtype: str, precision: Precision
) -> dict[int, tuple[int, torch.Tensor]]:
    """By depth: millibits, and the most likely tokens: the whole prompt through the whole model at once."""
    checkpoint = Checkpoint.open(model)
    full = checkpoint.config.num_layers
    backbone = Backbone.load(checkpoint, full, dtype=dtype, precision=precision)
    step, targets = whole_sequences(backbone.layout, [len(prompt)]), torch.tensor(prompt[1:])
    hidden, below, found = backbone.embed(torch.tensor(prompt), torch.arange(len(prompt))), 0, {}
    for layer in (*EXITS, full):
        hidden = backbone.run_layers(hidden, below, layer, step)
        below = layer
        scores = score(backbone, backbone.final_norm, hidden[:-1].clone(), targets)
        found[layer] = round(1000 * float(scores.bits.sum())), scores.top
    return found


def of_one_batch(engine: Engine, precision: Precision) -> dict[int, AuditRow]:
    """By ordinal, however slow this machine is: there is CPU time, and patience."""
    engine._auditor._share = CpuShare(lambda: 1e9)
    engine._auditor.follow(precision, reading_seconds=30.0)
    for prompt in PROMPTS:
        send(engine, prompt, max_tokens=5, ignore_eos=True)
    return audits(engine, len(PROMPTS))


def check(row: AuditRow, model: Path, prompt: tuple[int, ...], dtype: str, precision: Precision) -> None:
    """Exits in the precision that serves, full depth as published: of a direct pass through each."""
    published, own = (direct(model, prompt, dtype, each) for each in (Precision(), precision))
    full = Checkpoint.open(model).config.num_layers
    assert row.reference == "auto"
    assert row.full_millibits == pytest.approx(published[full][0], abs=2)
    assert row.bytes == Tokenizer.open(model).bytes_of(prompt[1:])
    for layer in (*EXITS, full):
        millibits, agreeing = row.exits["", layer]
        assert millibits == pytest.approx(own[layer][0], abs=2)
        assert agreeing == int((own[layer][1] == published[full][1]).sum())
    assert row.exits["", full][0] != row.full_millibits


@pytest.mark.parametrize("isa", [TORCH, *(name for name in names() if name != "none")])
@pytest.mark.parametrize("precision", [BOTH, KEYS], ids=str)
def test_rows_equal_direct_passes(tiny: Path, isa: str, precision: Precision) -> None:
    dtype = "float64" if isa == TORCH else "float16"
    config = EngineConfig(dtype=dtype, max_context=256, step_tokens=48, threads=1)
    with computing_with(isa):
        with running(tiny, config, **limits(precision, layer_budget=4)) as engine:
            rows = of_one_batch(engine, precision)
        for ordinal, prompt in enumerate(PROMPTS, start=1):
            check(rows[ordinal], tiny, prompt, dtype, precision)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama"])
def test_every_family_has_one(family: str, tmp_path: Path) -> None:
    """Learned positions, scaled embeddings, heads of their own, windows."""
    model = make_checkpoint(tmp_path / family, family, layers=5, seed=3, tied=family != "qwen2")
    with running(model, **limits(Precision("int8"))) as engine:
        send(engine, PROMPTS[0], max_tokens=5, ignore_eos=True)
        check(audits(engine, 1)[1], model, PROMPTS[0], "float64", Precision("int8"))


def test_a_checkpoint_that_is_published_quantised_is_the_reference(tiny: Path, tmp_path: Path) -> None:
    """Layers and head in int8, as they stand; what serves is int4, and changes to them and back."""
    model = publish(tiny, tmp_path / "published", "pack-quantized", ignore=())
    config = EngineConfig(dtype="float32", max_context=256)
    with running(model, config, **limits(Precision("int4"))) as engine:
        send(engine, PROMPTS[0], max_tokens=5, ignore_eos=True).result()
        row = audits(engine, 1)[1]
        stream = send(engine, PROMPTS[0], max_tokens=150, ignore_eos=True)
        for generation, precision in ((2, Precision()), (3, Precision("int4"))):
            stream.wait_for(len(stream.tokens) + 4)
            engine.set_limits(limits_for(model, generation=generation, **limits(precision))).result(60)
        event = stream.result()
    check(row, model, PROMPTS[0], "float32", Precision("int4"))
    Library("float32").check(PROMPTS[0], event, SamplingParams(max_tokens=150, ignore_eos=True))
    assert [span.served.weight_dtype for span in event.spans] == ["int4", "auto", "int4"]


@pytest.mark.parametrize("isa", [TORCH, *names()])
def test_the_head_comes_in_parts(isa: str) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 9 * torch.randn(7, 320, generator=generator)
    targets = torch.tensor([0, 99, 100, 101, 250, 319, 7])
    logits[2, 120] = logits[2, 30] = 99.0  # a tie: the first one is the most likely
    scores = PartialScores(targets, None if isa == TORCH else kernels(isa))
    for start in (0, 100, 200, 300):
        for rows in (slice(0, 4), slice(4, 7)):
            scores.add(rows, start, logits[rows, start : start + 100].clone())
    wanted = -logits.double().log_softmax(-1)[torch.arange(7), targets] / torch.log(
        torch.tensor(2.0).double()
    )
    assert torch.allclose(scores.all().bits, wanted)
    assert scores.all().top.tolist() == logits.argmax(-1).tolist()
    assert scores.all().top[2] == 30


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            self.nbytes = max(self.nbytes, each.nbytes if isinstance(each, Tensor) else 0)
        return made


def test_the_logits_of_a_whole_vocabulary_are_never_there_in_float64() -> None:
    """What audits may take has them once, as they are multiplied."""
    logits, targets = torch.zeros(32, 5000), torch.zeros(32, dtype=torch.int64)
    with Largest() as largest:
        PartialScores(targets, None).add(slice(0, 32), 0, logits)
    assert largest.nbytes <= logits.nbytes


def test_one_layer_as_published_is_held_at_a_time(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = set[int](), list[int]()
    load, run = Backbone.load_layer, AuditBatch._run_layer

    def loaded(self: Backbone, index: int) -> object:
        if self.precision == Precision():
            held.add(index)
            most.append(len(held))
        return load(self, index)

    def ran(self: AuditBatch, layer: object, *rest: object) -> object:
        yield from run(self, layer, *rest)  # type: ignore[arg-type]
        held.discard(layer.index)  # type: ignore[attr-defined]

    with running(tiny, **limits(BOTH, layer_budget=2)) as engine:
        monkeypatch.setattr(Backbone, "load_layer", loaded)
        monkeypatch.setattr(AuditBatch, "_run_layer", ran)
        of_one_batch(engine, BOTH)
    assert set(most) == {1}
    assert len(most) >= 6


def test_the_audit_counts_a_layer_of_floats(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    published, held = (
        Backbone.load(checkpoint, 1, dtype="float64", precision=precision)
        for precision in (Precision(), BOTH)
    )
    assert held.layer_bytes < published.layer_bytes / 4
    assert audit_bytes(held) == audit_bytes(published)


# -- as often as the process's CPU time allows ---------------------------------------------------------------


class Clocks:
    """CPU seconds of the process and of the thread, as a test says."""

    def __init__(self) -> None:
        self.process = self.thread = 0.0

    def share(self) -> CpuShare:
        return CpuShare(lambda: self.process, lambda: self.thread)


def test_what_is_counted_stays_within_the_share() -> None:
    clocks = Clocks()
    share = clocks.share()
    assert share.allows(0.0)
    assert not share.allows(0.1)
    clocks.process = 0.5 / SHARE
    assert share.allows(0.5)
    with share.counted(threads=2):
        clocks.thread += 0.2
    assert share.spent == pytest.approx(0.4)
    assert not share.allows(0.5)
    assert share.allows(0.1)
    clocks.process = 0.9 / SHARE
    assert share.allows(0.5)


def test_what_is_not_held_to_the_share_is_told_all_the_same() -> None:
    clocks = Clocks()
    share = clocks.share()
    for held in (True, False):
        with share.counted(threads=2, held=held):
            clocks.thread += 0.2
    assert (share.spent, share.total) == pytest.approx((0.4, 0.8))


def test_a_batch_that_reads_the_whole_model_waits_for_company(tiny: Path) -> None:
    """Although nothing else runs; one of the model as published, which reads what is missing, does not."""
    with running(tiny, **limits(BOTH)) as engine:
        engine._auditor._share = CpuShare(lambda: 1e9)
        engine._auditor.follow(BOTH, reading_seconds=30.0)
        send(engine, PROMPTS[0], max_tokens=3).result()
        wait_for(lambda: engine._auditor.wakes_in(0.0) is not None)
        assert engine.telemetry().audits == ()
        for prompt in PROMPTS[1:]:
            assert send(engine, prompt, max_tokens=3).result()
        rows = audits(engine, len(PROMPTS))
    assert [row.reference for row in rows.values()] == ["auto"] * len(PROMPTS)


def test_the_model_as_published_is_read_when_that_is_earned(tiny: Path) -> None:
    """Prompts are compared with their own full depth until then, and none waits for it."""
    clocks = Clocks()
    with running(tiny, **limits(BOTH, layer_budget=4)) as engine:
        engine._auditor._share = clocks.share()
        engine._auditor.follow(BOTH, reading_seconds=0.1)
        for prompt in PROMPTS:
            assert send(engine, prompt, max_tokens=3).result()
        audits(engine, len(PROMPTS))
        assert engine._auditor._share.spent == 0.0
        clocks.process = 0.1 / SHARE
        engine.at_boundary(lambda: [send(engine, prompt, max_tokens=3) for prompt in PROMPTS[:2]]).result()
        rows = audits(engine, len(PROMPTS) + 2)
        assert engine.audits_skipped == 0
    assert [row.reference for row in rows.values()] == ["own"] * len(PROMPTS) + ["auto"] * 2
    first, again = rows[1], rows[len(PROMPTS) + 1]
    assert first.exits["", 2][0] == again.exits["", 2][0]
    assert first.full_millibits == first.own_full(6) == again.own_full(6) != again.full_millibits


def test_where_reading_it_cannot_be_kept_up_full_depth_is_the_own(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SELDOM_SECONDS", 0.0)
    with running(tiny, **limits(BOTH, layer_budget=4)) as engine:
        send(engine, PROMPTS[2], max_tokens=3)
        row = audits(engine, 1)[1]
    own = direct(tiny, PROMPTS[2], "float64", BOTH)
    assert row.reference == "own"
    assert row.full_millibits == pytest.approx(own[6][0], abs=1)
    assert {layer for _, layer in row.exits} == set(EXITS)


SERVED = ExitInUse(("file:///m", "r"), "", 4, 6, Baseline(0.9, 0.02), None, BOTH)


def told(watch: Watch, requests: range, quality: float, loss: float) -> None:
    """Audits of the exit after layer 4 by turns beside the own full depth, and beside the model as published,
    from which int8 is `loss` away: then full depth is among the exits."""
    for ordinal in requests:
        own = 100_000
        exits = {("", 4): (round(own / quality), 30)}
        if ordinal % 3:
            watch.audit(AuditRow(ordinal, 40, 160, own, exits, "own"), 1.0)
        else:
            full = round(own * (1 - loss))
            watch.audit(AuditRow(ordinal, 40, 160, full, {**exits, ("", 6): (own, 35)}), 1.0)


def test_a_detector_hears_audits_beside_either_full_depth() -> None:
    watch = Watch(SERVED)
    told(watch, range(1, 60), 0.9, loss=0.1)
    assert not watch.alarms
    told(watch, range(60, 80), 0.8, loss=0.1)
    assert [(alarm.kind, alarm.since_request) for alarm in watch.alarms][:1] == [("Audit", 60)]
    watch.follow(replace(SERVED, precision=KEYS))
    assert not watch.alarms


def test_full_depth_of_a_quantised_model_is_watched_beside_the_model_as_published_alone() -> None:
    watch = Watch(replace(SERVED, depth=6, quality=Baseline(0.99, 0.01)))
    told(watch, range(1, 60), 0.9, loss=0.01)
    assert not watch.alarms
    told(watch, range(60, 90), 0.9, loss=0.2)
    assert [(alarm.kind, alarm.since_request) for alarm in watch.alarms][:1] == [("Audit", 60)]


def _full_quality(engine: Engine) -> float:
    row = engine.telemetry().audits[-1]
    return row.full_millibits / row.exits["", 6][0]


def test_audits_follow_a_requantize(tiny: Path) -> None:
    """Rows of another precision say nothing of this one: they go, and those of what serves come."""
    with running(tiny, **limits(BOTH)) as engine:
        send(engine, PROMPTS[0], max_tokens=3).result()
        audits(engine, 1)
        assert _full_quality(engine) != 1.0
        engine.set_limits(limits_for(tiny, generation=2, **limits(Precision()))).result(60)
        assert engine.telemetry().audits == ()
        send(engine, PROMPTS[2], max_tokens=3).result()
        wait_for(lambda: len(engine.telemetry().audits) == 1)
        row = engine.telemetry().audits[0]
    assert row.full_millibits == direct(tiny, PROMPTS[2], "float64", Precision())[6][0]
    assert {layer for _, layer in row.exits} == set(EXITS)
