"""Quality rows: planted properties are found, bits equal transformers', nothing depends on order or names."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_contract.results import Quality
from helios_server.errors import BundleError, InvalidRequest, OutOfMemoryBudget
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.quality import QualitySettings, measure_quality
from helios_server.progress import Progress
from transformers import AutoModelForCausalLM

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS, identity_bundle, idle_after, noise_bundle


def measure(
    candidates: list[Candidate], prompts: list[str] = TEXTS, memory_mib: int | None = None
) -> Quality:
    opened = open_backbone(candidates, volumes=None)
    return measure_quality(opened, prompts, QualitySettings("cpu", "float64", memory_mib), Progress())


def candidate(
    model: Path, name: str = "one", exits: Path | None = None, layers: tuple[int, ...] = ()
) -> Candidate:
    return Candidate(name, f"file://{model}", None, f"file://{exits}" if exits else None, layers)


def test_an_exit_before_idle_layers_is_as_good_as_full_depth(tmp_path: Path) -> None:
    model = idle_after(tmp_path / "model", layer=2)
    first, second, full = measure([candidate(model, layers=(1, 2))]).rows[0].exits
    assert (first.layer, second.layer, full.layer) == (1, 2, 4)
    assert second.millibits == full.millibits
    assert second.prompt_millibits == full.prompt_millibits
    assert second.agreement_percent == 100
    assert first.agreement_percent < 100
    assert full.first_agrees_percent == 0
    assert first.first_agrees_percent == first.agreement_percent


@pytest.mark.parametrize("family", ["llama", "opt", "gemma3_text"])
def test_bits_equal_those_of_transformers(tmp_path: Path, family: str) -> None:
    model = make_checkpoint(tmp_path / "model", family, layers=3)
    document = measure([candidate(model, layers=(2,))])
    exits = {exit_.layer: exit_.prompt_millibits for exit_ in document.rows[0].exits}
    tokenizer = Tokenizer.open(model)
    for layers, millibits in exits.items():
        oracle = AutoModelForCausalLM.from_pretrained(model, num_hidden_layers=layers, dtype=torch.float64)
        for text, measured in zip(TEXTS, millibits, strict=True):
            ids = torch.tensor([tokenizer.encode(text)])
            loss = oracle(ids, labels=ids).loss.item()
            assert measured == pytest.approx(1000 * loss * (ids.shape[1] - 1) / math.log(2), abs=1)


def test_what_is_counted_is_every_token_but_the_first(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    document = measure([candidate(model)])
    tokenizer = Tokenizer.open(model)
    ids = [tokenizer.encode(text) for text in TEXTS]
    assert document.prompts == len(TEXTS)
    assert document.tokens == sum(len(tokens) - 1 for tokens in ids)
    assert document.prompt_bytes == tuple(tokenizer.bytes_of(tokens[1:]) for tokens in ids)
    assert document.bytes == sum(document.prompt_bytes)
    for exit_ in document.rows[0].exits:
        assert exit_.millibits == pytest.approx(sum(exit_.prompt_millibits), abs=len(TEXTS))


def test_a_bundle_of_noise_is_measured_as_bad(tmp_path: Path) -> None:
    model = idle_after(tmp_path / "model", layer=2)
    noise = noise_bundle(tmp_path / "noise", model, (2,))
    handed_on = identity_bundle(tmp_path / "identity", model, (2,))
    bad, good = measure([candidate(model, "bad", noise), candidate(model, "good", handed_on)]).rows
    assert bad.exits[0].agreement_percent < 20
    assert good.exits[0].agreement_percent > 95
    assert bad.exits[0].millibits > good.exits[0].millibits
    # Full depth uses the model's own head, whatever the bundle.
    assert bad.exits[-1].prompt_millibits == good.exits[-1].prompt_millibits
    assert bad.exits_digest != good.exits_digest


def test_the_shares_of_first_agreement_make_up_all_tokens(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=4)
    exits = measure([candidate(model, layers=(1, 2, 3))]).rows[0].exits
    assert sum(exit_.first_agrees_percent for exit_ in exits) == pytest.approx(100, abs=2)
    assert exits[-1].ece_milli == 0
    assert all(0 <= exit_.mean_confidence_milli <= 1000 for exit_ in exits)


def test_figures_do_not_depend_on_names_or_order(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=3)
    noise = noise_bundle(tmp_path / "noise", model, (1, 2))
    a, b = candidate(model, "a", layers=(1,)), candidate(model, "b", noise)
    forth, back = measure([a, b]), measure([candidate(model, "z", noise), candidate(model, "y", layers=(1,))])
    nameless = [[replace(row, candidate="") for row in each.rows] for each in (forth, back)]
    assert nameless[0] == nameless[1][::-1]
    assert forth.prompts_digest == back.prompts_digest


def test_figures_do_not_depend_on_how_texts_are_grouped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=3)
    together = measure([candidate(model, layers=(1,))])
    monkeypatch.setattr("helios_server.profile.streaming.GROUP_TOKENS", 1)
    assert measure([candidate(model, layers=(1,))]) == together


def test_full_depth_is_measured_without_any_exit(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    (row,) = measure([candidate(model, layers=(2,))]).rows
    assert [exit_.layer for exit_ in row.exits] == [2]


def test_wrong_input_is_refused_by_name(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", layers=2)
    other = make_checkpoint(tmp_path / "other", layers=2, seed=1)
    with pytest.raises(InvalidRequest, match=r"^candidates: .*'b' and 'a' are different backbones"):
        measure([candidate(model, "a"), candidate(other, "b")])
    with pytest.raises(BundleError, match="fingerprint"):
        measure([candidate(model, exits=noise_bundle(tmp_path / "heads", other, (1,)))])
    with pytest.raises(InvalidRequest, match="exitLayers: 3 is above the model's depth of 2"):
        measure([candidate(model, layers=(3,))])
    with pytest.raises(InvalidRequest, match=r"prompts\[1\]: has 900 tokens, the model reads 1 to 512"):
        measure([candidate(model)], ["short but long enough", "x" * 900])
    with pytest.raises(InvalidRequest, match=r"prompts: .*nothing to predict"):
        measure([candidate(model)], ["x"])
    with pytest.raises(OutOfMemoryBudget, match=r"memory-mib: .* takes \d+ MiB, 20 are given"):
        measure([candidate(model)], memory_mib=20)
