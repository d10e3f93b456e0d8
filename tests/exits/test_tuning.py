"""Training on generated models: what regression must recover, what distillation must improve, what noise
must cost."""

from __future__ import annotations

import random
import re
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch
from helios_contract.progress import heard
from helios_contract.serves import Precision
from helios_server.errors import BundleError, DataError, HeliosError
from helios_server.exits.bundle import HeadBundle, describe_backbone, write_bundle
from helios_server.exits.distill import Budget, Pair, TrainableHead, distill, divergence, fit_ridge
from helios_server.exits.evaluate import evaluate
from helios_server.exits.head import head_shapes
from helios_server.exits.hidden import WINDOW_TOKENS, gather, read_windows
from helios_server.exits.measured import measured, warnings
from helios_server.exits.tuning import HeadPlan, proposed_layers, train_heads, tune
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.norm import LayerNorm, Norm, OffsetRmsNorm, RmsNorm
from helios_server.models.tokenizer import Tokenizer
from helios_server.progress import Progress
from torch import Tensor

from tests.checkpoints import HIDDEN, make_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(tmp_path_factory.mktemp("model"), layers=4, dtype=torch.float32))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dice = random.Random(0)
    words = ("the", "then", "other", "on", "in", "win", "tin", "thin", "sea", "ship", "12", "def", "return")
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(" ".join(dice.choice(words) for _ in range(8000)))
    return file


def bare_head(kind: str) -> TrainableHead:
    return TrainableHead(kind, HIDDEN, 1e-5, RmsNorm(torch.rand(HIDDEN) + 0.5, 1e-5))


SHIFT = torch.rand(HIDDEN)
FINAL_NORMS: list[tuple[Norm, Tensor | float]] = [
    (RmsNorm(torch.rand(HIDDEN) + 0.5, 1e-5), 0.0),
    (OffsetRmsNorm(torch.rand(HIDDEN) - 0.5, 1e-5), 0.0),
    (LayerNorm(torch.rand(HIDDEN) + 0.5, SHIFT, 1e-5), SHIFT),
]


@pytest.mark.parametrize(("final", "shift"), FINAL_NORMS, ids=["rms", "rms_offset", "layer"])
def test_ridge_recovers_a_planted_map_despite_huge_directions(final: Norm, shift: Tensor | float) -> None:
    """Of every kind of final norm: what it multiplies by and adds is not the map's to learn."""
    torch.manual_seed(0)
    head = TrainableHead("affine", HIDDEN, 1e-5, final)
    inputs = torch.randn(6000, HIDDEN)
    inputs[:, :3] *= 300.0  # residual streams have such directions
    planted, bias = torch.randn(HIDDEN, HIDDEN), torch.randn(HIDDEN)
    normed = RmsNorm(torch.ones(HIDDEN), 1e-5)(inputs)
    scale = normed.std(0)
    clean = (normed / scale) @ planted.T + bias
    targets = head._final(clean) / head._final.weight
    # The final norm fixes the length of what it is given: plant rows of length one, so that the map is exact.
    fit_ridge(head, [Pair(inputs, clean * head._final.weight + shift)])
    found = head.part("affine.weight").detach() * scale
    assert torch.allclose(found, planted, atol=0.02)
    assert torch.allclose(head.part("affine.bias"), bias, atol=0.05)
    assert torch.allclose(head(inputs) / head._final.weight, targets, atol=0.02)


def test_ridge_weighs_domains_the_same_whatever_their_sizes() -> None:
    torch.manual_seed(0)
    head = bare_head("affine")
    inputs = torch.randn(4000, HIDDEN)
    small, large = Pair(inputs[:500], torch.ones(500, HIDDEN)), Pair(inputs[500:], -torch.ones(3500, HIDDEN))
    fit_ridge(head, [small, large])
    assert head.part("affine.bias").abs().max() < 0.2


def test_distillation_lowers_the_divergence_that_regression_leaves() -> None:
    torch.manual_seed(0)
    lm_head = torch.randn(400, HIDDEN) / 3
    head, inputs = bare_head("mlp"), torch.randn(16_000, HIDDEN)
    targets = head._final(torch.relu(inputs @ torch.randn(HIDDEN, HIDDEN) / 8))  # no linear map does this
    unseen = (inputs[-500:], targets[-500:])
    pairs = [Pair(inputs[:-500], targets[:-500])]
    fit_ridge(head, pairs)
    before = divergence(head, unseen, lm_head)
    said: list[str] = []
    assert distill(head, pairs, lm_head, torch.arange(100), Budget(steps=200), 0, said.append) == 200
    assert "KL" in said[-1]
    assert divergence(head, unseen, lm_head) < 0.8 * before


def test_a_tuned_bundle_beats_the_bare_exit_and_noise_is_measured_as_bad(
    tmp_path: Path, checkpoint: Checkpoint, text: Path
) -> None:
    bundle = tune(checkpoint, [text], layers=[2, 1], out=tmp_path / "heads", steps=60, tokens=20_000)
    assert bundle.layers == (1, 2)
    rows = bundle.meta["evaluation"][0]["exits"]
    backbone, tokenizer = Backbone.load(checkpoint, 4, dtype="float32"), Tokenizer.open(checkpoint.path)
    noise = noise_bundle(tmp_path / "noise", checkpoint)
    windows = read_windows(text, tokenizer, 2000, seed=5)
    scored = evaluate(
        backbone, {"tuned": bundle, "bare": None, "noise": noise}, [1, 2, 4], windows, tokenizer
    )
    for index, layer in enumerate((1, 2)):
        tuned, bare, bad = (scored[name].exits[index] for name in ("tuned", "bare", "noise"))
        assert tuned.layer == layer == rows[index]["layer"]
        assert tuned.agreement > bare.agreement + 0.05
        assert bad.agreement < 0.05
        calibration = bundle.calibration(layer)
        assert calibration is not None
        assert sum(calibration.tokens) == rows[index]["tokens"]
    full = scored["noise"].exits[-1]  # at full depth every bundle is the model itself
    assert (full.quality_percent, full.agreement) == (pytest.approx(100), 1.0)


@pytest.mark.parametrize("family", ["opt", "gemma3_text"])
def test_heads_of_other_families_beat_the_bare_exit(tmp_path: Path, text: Path, family: str) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path / "model", family, layers=3, dtype=torch.float32))
    bundle = tune(checkpoint, [text], layers=[1], kind="affine", out=tmp_path / "heads", tokens=8000)
    backbone, tokenizer = Backbone.load(checkpoint, 3, dtype="float32"), Tokenizer.open(checkpoint.path)
    windows = read_windows(text, tokenizer, 2000, seed=5)
    scored = evaluate(backbone, {"tuned": bundle, "bare": None}, [1, 3], windows, tokenizer)
    tuned, bare = (scored[name].exits[0].agreement for name in ("tuned", "bare"))
    assert tuned > bare + 0.05


def noise_bundle(path: Path, checkpoint: Checkpoint) -> HeadBundle:
    torch.manual_seed(0)
    heads = {
        layer: ("mlp", {name: torch.randn(shape) for name, shape in head_shapes("mlp", HIDDEN).items()})
        for layer in (1, 2)
    }
    write_bundle(path, heads, {"backbone": describe_backbone(checkpoint), "training": {}, "evaluation": []})
    return HeadBundle.load(path, checkpoint)


def test_the_same_command_gives_the_same_heads(tmp_path: Path, checkpoint: Checkpoint, text: Path) -> None:
    def heads(out: str, seed: int) -> dict[str, Tensor]:
        arguments = {"layers": [2], "steps": 5, "tokens": 4000, "seed": seed}
        return tune(checkpoint, [text], out=tmp_path / out, **arguments).tensors(2)  # type: ignore[arg-type]

    first, again, other = heads("first", 1), heads("again", 1), heads("other", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["affine.weight"], other["affine.weight"])


def test_an_affine_bundle_needs_no_budget_and_says_how_it_was_made(
    tmp_path: Path, checkpoint: Checkpoint, text: Path
) -> None:
    said: list[str] = []
    bundle = tune(
        checkpoint,
        [text],
        layers=[3],
        kind="affine",
        out=tmp_path / "heads",
        tokens=4000,
        progress=Progress(say=said.append),
    )
    training = bundle.meta["training"]
    assert f"{text} --layers 3 --kind affine" in training["command"]
    assert training["data"][0]["tokens"] % WINDOW_TOKENS == 0
    assert any(re.search(r"reading [\d,]+ tokens", line) for line in said)
    assert any("ridge" in line for line in said)


@pytest.mark.parametrize("texts", [1, 2])
def test_every_stage_says_how_long_the_rest_will_take(
    tmp_path: Path, checkpoint: Checkpoint, text: Path, texts: int
) -> None:
    """From the first windows that are read on; the clock is one of a second a look."""
    more = [text, tmp_path / "more.txt"]
    more[1].write_text(text.read_text()[:9000])
    said: list[str] = []
    seconds = count(0.0, 1.0)
    progress = Progress(lambda: next(seconds), said.append)
    tune(
        checkpoint,
        more[:texts],
        layers=[1, 2],
        out=tmp_path / "heads",
        steps=20,
        tokens=9000,
        progress=progress,
    )
    told = [heard(line) for line in said]
    stages = [
        said.index(next(line for line in said if words in line)) for words in ("reading", "ridge", "held-out")
    ]
    for begun, ended in pairwise([*stages, len(said)]):
        assert any(told[begun:ended])
    shares = [int(words.partition(" %")[0]) for words in filter(None, told)]
    assert shares[0] < 10
    assert shares[-1] > 90
    assert len(shares) > 10


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"layers": [4]}, BundleError, r"layers: \[4\] is not within 1\.\.3"),
        ({"layers": []}, BundleError, "layers"),
        ({"kind": "lora"}, BundleError, "kind: 'lora'"),
        ({"steps": None}, BundleError, "either seconds or steps"),
        ({"seconds": 1.0}, BundleError, "either seconds or steps"),
        ({"texts": []}, DataError, "no text"),
        ({"texts": [Path("/absent.txt")]}, DataError, r"/absent\.txt: no such file"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(
    tmp_path: Path,
    checkpoint: Checkpoint,
    text: Path,
    options: dict[str, object],
    error: type[HeliosError],
    problem: str,
) -> None:
    usual: dict[str, object] = {"texts": [text], "layers": [2], "steps": 1, "out": tmp_path / "heads"}
    with pytest.raises(error, match=problem):
        tune(checkpoint, **(usual | options))  # type: ignore[arg-type]
    assert not (tmp_path / "heads").exists()


@pytest.mark.parametrize("content", ["too short", b"\xff\xfe\x00 not text" * 500])
def test_text_that_cannot_be_used_is_named(
    tmp_path: Path, checkpoint: Checkpoint, content: str | bytes
) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"text\.txt"):
        tune(checkpoint, [file], layers=[2], steps=1, out=tmp_path / "heads")


@pytest.mark.parametrize("precision", [Precision("int8", "int8"), Precision("int4")], ids=str)
def test_heads_are_scored_on_a_quantised_backbone_and_not_trained_against_one(
    tmp_path: Path, checkpoint: Checkpoint, text: Path, precision: Precision
) -> None:
    tokenizer = Tokenizer.open(checkpoint.path)
    windows, noise = read_windows(text, tokenizer, 1000, seed=5), noise_bundle(tmp_path / "noise", checkpoint)
    backbone = Backbone.load(checkpoint, 4, dtype="float32", precision=precision)
    scored = evaluate(backbone, {"noise": noise, "bare": None}, [1, 4], windows, tokenizer)
    full = scored["noise"].exits[-1]
    assert (full.quality_percent, full.agreement) == (pytest.approx(100), 1.0)
    assert scored["noise"].exits[0].agreement < scored["bare"].exits[0].agreement < 1
    plan = HeadPlan((1,), "mlp", Budget(steps=1), 0)
    with pytest.raises(BundleError, match="heads cannot be trained against packed weights"):
        train_heads(backbone, [gather(backbone, windows, [1])], plan, print)


@pytest.mark.parametrize(
    ("layers", "proposed"), [(30, (24, 27)), (32, (26, 29)), (12, (10, 11)), (4, (3,)), (2, ()), (1, ())]
)
def test_depths_are_proposed(layers: int, proposed: tuple[int, ...]) -> None:
    assert proposed_layers(layers) == proposed


def test_what_was_measured_is_told_beside_full_depth(
    checkpoint: Checkpoint, text: Path, tmp_path: Path
) -> None:
    bundle = tune(checkpoint, [text], layers=[2, 3], kind="affine", out=tmp_path / "heads")
    rows = measured(bundle, 4)
    assert [(row.text, row.layer) for row in rows] == [("text", 2), ("text", 3), ("text", 4)]
    assert (rows[-1].quality_percent, rows[-1].agreement, rows[-1].ece) == (100.0, 1.0, None)
    full = rows[-1].bits_per_byte
    for row in rows[:-1]:
        assert row.quality_percent == pytest.approx(100 * full / row.bits_per_byte, rel=1e-3)


def test_too_little_text_is_said_with_how_much_to_give(
    checkpoint: Checkpoint, text: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text(text.read_text()[:2600])
    (told,) = warnings(tune(checkpoint, [few], layers=[3], kind="affine", out=tmp_path / "a"))
    found = re.fullmatch(
        r"few: (too )?little text, [\d,]+ tokens: .*; give ([\d,]+0,000) tokens, with --tokens (\d+)", told
    )
    assert found
    assert found[2].replace(",", "") == found[3]
    bundle = tune(checkpoint, [few], layers=[3], kind="affine", out=tmp_path / "b")
    (row,) = bundle.meta["evaluation"]
    quality = row["exits"][0]["quality_percent"]
    row |= {"trainedTokens": 200_000, "trainedQualityPercent": {"3": quality + 4}}
    (told,) = warnings(bundle)
    assert told.startswith("few: too little text, 200,000 tokens: heads are 4.0 points of quality better on")
    assert told.endswith("; give 800,000 tokens, with --tokens 800000")
    row["trainedQualityPercent"] = {"3": quality + 1}
    assert not list(warnings(bundle))
