"""`bench.engine`: an engine in a process of its own answers, fails alone, and never speaks for another."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helios_server.native.library import library
from safetensors.numpy import load_file

from bench.engine import __main__ as run
from bench.engine import texts
from bench.engine.__main__ import contenders
from bench.engine.adapter import Setting
from bench.engine.contender import Contender, Failed
from bench.engine.parts import PARTS
from bench.engine.peers import PEERS, llamacpp
from tests.checkpoints import VOCAB, make_checkpoint
from tests.engine import fake_peer

Opened = Callable[..., Contender]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))
    model, running = tmp_path / "model", list[Contender]()
    model.mkdir()

    def start(variant: str, isa: str = "native", recipe: str = "1") -> Contender:
        contender = Contender("fake", variant, fake_peer.PEER, isa, "tests.engine.fake_peer")
        running.append(contender)
        contender.start(model, recipe, threads=1, rows=4, tokens=64)
        return contender

    yield start
    for contender in running:
        contender.stop()


def test_it_answers_whatever_its_libraries_print(opened: Opened) -> None:
    good = opened("good")
    assert good.errors == {}
    assert good.numerics == "good of model, native"
    assert good.generate([[5, 6], [7, 8]], 3) >= 0
    assert good.score([[1, 2, 3], [4, 5]]) == 3


def test_it_is_held_to_an_instruction_set(opened: Opened) -> None:
    held = opened("good", isa="avx2")
    assert held.numerics == "good of model, avx2"
    assert held.isa_of == {"set": "avx2", "by": {"FAKE_ISA": "avx2"}}
    for isa in ("native", "amx"):  # nothing holds it to the latter
        assert opened("good", isa=isa).isa_of == {"set": "native", "by": {}}


def test_another_model_is_converted_again(opened: Opened, tmp_path: Path) -> None:
    made = tmp_path / "cache" / "peers" / "fake" / "models" / "good" / "made"
    opened("good")
    first = made.stat().st_ino
    opened("good")
    assert made.stat().st_ino == first
    opened("good", recipe="2")
    assert made.stat().st_ino != first


def test_one_that_does_not_start_says_why_and_is_asked_no_more(opened: Opened) -> None:
    closed = opened("closed")
    assert closed.errors == {"start": "ValueError: this wheel does not start here"}
    assert not closed.open
    with pytest.raises(Failed, match="this wheel does not start here"):
        closed.generate([[1]], 1)


def test_one_that_dies_says_its_last_words(opened: Opened) -> None:
    dying = opened("dying")
    dying.generate([[1]], 2)
    with pytest.raises(Failed, match=r"its process ended \(9\): .*out of memory"):
        dying.generate([[1], [2]], 2)
    assert not dying.open


def test_other_than_the_tokens_asked_for_is_no_answer(opened: Opened) -> None:
    with pytest.raises(Failed, match=r"it answered 2 rows of \[2\] tokens, not 2 of 3"):
        opened("short").generate([[1], [2]], 3)


def test_what_it_cannot_do_is_told_and_it_goes_on(opened: Opened) -> None:
    mute = opened("mute")
    with pytest.raises(Failed, match=r"^it tells no probabilities$"):
        mute.score([[1, 2]])
    assert mute.generate([[1]], 1) >= 0


def test_contenders_are_named_by_peer_or_variant() -> None:
    assert [one.name for one in contenders(["openvino", "helios:float16"])] == [
        "openvino:fp16",
        "openvino:int8",
        "helios:float16",
    ]
    assert {one.peer_name for one in contenders([])} == set(PEERS)
    for wrong in ("nobody", "helios:int3"):
        with pytest.raises(ValueError, match=f"there is no '{wrong}'"):
            contenders([wrong])


# -- ours ----------------------------------------------------------------------------------------------------


def _setting(model: Path, folder: Path) -> Setting:
    return Setting(model, folder, "float32", threads=1, rows=4, tokens=96)


def test_ours_answers_and_scores_as_transformers_does(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", dtype=torch.float32)
    dice = np.random.default_rng(0)
    windows = [dice.integers(0, VOCAB, 40).tolist() for _ in range(3)]
    ours = PEERS["helios"].open(_setting(model, tmp_path))
    theirs = PEERS["transformers"].open(_setting(model, tmp_path))
    assert ours.score(windows) == pytest.approx(theirs.score(windows), rel=1e-4)
    assert ours.generate(windows, 12) == theirs.generate(windows, 12) == ours.generate(windows, 12)
    parts = ours.parts(windows, 12)  # type: ignore[attr-defined]
    assert parts.keys() == {*PARTS, "step"}
    assert all(seconds >= 0 for seconds in parts.values())
    assert 0 < parts["layers"] < parts["step"]
    ours.engine.stop()  # type: ignore[attr-defined]


def test_a_gguf_file_holds_the_checkpoint(tmp_path: Path) -> None:
    """Read back by what converts the real model, which comes as GGUF."""
    from gguf import GGUFReader
    from helios_server.models.smollm2 import _config, _tensors

    model = make_checkpoint(tmp_path / "model", dtype=torch.float16)
    for variant, tolerance in (("f16", 0.0), ("q8_0", 0.02)):
        folder = tmp_path / variant
        folder.mkdir()
        llamacpp._prepare(model, folder, variant)
        reader = GGUFReader(folder / "model.gguf")
        found, stored = _tensors(reader, _config(reader)), load_file(model / "model.safetensors")
        assert found.keys() == stored.keys()
        for name, tensor in stored.items():
            np.testing.assert_allclose(
                found[name], tensor, atol=tolerance * np.abs(tensor).max(), err_msg=name
            )


# -- a run ---------------------------------------------------------------------------------------------------


def test_a_run_tells_of_everyone_whoever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PEERS, "fake", fake_peer.PEER)
    monkeypatch.setattr(run, "_REFERENCE", "fake:good")
    monkeypatch.setattr(run.texts, "text", lambda *_: texts.Text([list(range(1, 21))] * 2, bytes=38))
    those = contenders(["helios:float16", "fake"])
    for contender in those[1:]:
        contender.module = "tests.engine.fake_peer"
    options = Namespace(
        contenders=those,
        shapes=[(12, 4)],
        batches=[1, 2],
        rounds=2,
        minutes=5,
        threads=1,
        isa="native",
        quick=True,
    )
    bench = run.Bench(make_checkpoint(tmp_path / "model"), options)
    try:
        claims = {claim.id: claim.value for claim in bench.run()}
    finally:
        bench.stop()
    told = json.loads(json.dumps(bench.figures))
    assert {name: about["errors"].keys() for name, about in told["contenders"].items()} == {
        "helios:float16": set(),
        "fake:good": set(),
        "fake:closed": {"start"},
        "fake:dying": set(),
        "fake:short": set(),
        "fake:mute": {"score"},
    }
    alone, pair = told["cells"]
    assert len(alone["secondsFirstAndWhole"]) == len(pair["secondsFirstAndWhole"]) == 2
    assert alone["errors"]["fake:short"] == "it answered 1 rows of [1] tokens, not 1 of 2"
    assert alone["errors"].get("fake:dying") in (
        None,
        "its process had ended",
    )  # if it had a round after that
    assert pair["errors"].keys() == {"fake:short", "fake:dying"}
    assert told["leftOut"] == []
    assert claims["quality-prose-fake-good"] == 100
    assert {"decode-12-4-batch-2-helios-float16", "roofline-12-4-batch-1-helios-float16"} <= claims.keys()
    assert 0 < claims["outside-kernels-batch-2-helios-float16"] < 1
    assert told["bareProductsBytesPerSecond"].keys() == {"helios:float16"}
    for place in ("memory", "cache") if library() else ():
        assert claims[f"bare-products-{place}-helios-float16"] > 0
    ratios = [name for name in claims if name.startswith("decode-12-4-batch-2-16-bit-helios-float16-over-")]
    assert len(ratios) == 1
