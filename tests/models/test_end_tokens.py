"""Which tokens end a text: both files', each one that can be chosen, and nothing that is no id."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from helios_server.errors import HeliosError
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint

from tests.checkpoints import EOS_ID, VOCAB, make_checkpoint
from tests.models.changes import change_config

IGNORED = [(VOCAB, ()), (-1, ()), ([999], ()), ([EOS_ID, 999, -1], (EOS_ID,)), (2**70, ())]
REFUSED = ["2", "</s>", True, 2.0, [["2"]], [2, None], [2, True], [[2]], {"id": 2}]


def ends(path: Path) -> tuple[int, ...]:
    return Checkpoint.open(path).config.eos_token_ids


def generation(path: Path, content: object) -> None:
    (path / "generation_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("value", "left"), IGNORED)
def test_ids_outside_the_vocabulary_are_ignored_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, value: object, left: tuple[int, ...]
) -> None:
    change_config(make_checkpoint(tmp_path), eos_token_id=value if file == "config.json" else None)
    if file == "generation_config.json":
        generation(tmp_path, {"eos_token_id": value})
    with caplog.at_level(logging.WARNING):
        backbone = Backbone.load(Checkpoint.open(tmp_path), 1, dtype="float32")
    assert backbone.config.eos_token_ids == left
    assert f"{file}: eos_token_id" in caplog.text
    assert "outside the vocabulary of 320 tokens" in caplog.text


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", REFUSED)
def test_what_is_no_id_is_refused_by_name(tmp_path: Path, file: str, value: object) -> None:
    make_checkpoint(tmp_path)
    if file == "config.json":
        change_config(tmp_path, eos_token_id=value)
    else:
        generation(tmp_path, {"eos_token_id": value})
    with pytest.raises(HeliosError, match=r"expected a token id or a list of them, found") as caught:
        Checkpoint.open(tmp_path)
    assert (caught.value.field, caught.value.fix) == ("eos_token_id", f"Correct it in {file}")


@pytest.mark.parametrize(
    ("config", "also", "expected"),
    [
        (257, {"eos_token_id": [257, 258, 5]}, (257, 258, 5)),
        ([257, 256], {"eos_token_id": 258}, (257, 256, 258)),
        (257, {"temperature": 0.6}, (257,)),
        (257, {"eos_token_id": None}, (257,)),
        (None, {"eos_token_id": 258}, (258,)),
        ([], {"eos_token_id": []}, ()),
    ],
)
def test_the_ends_of_both_files_count(
    tmp_path: Path, config: object, also: dict[str, object], expected: tuple[int, ...]
) -> None:
    change_config(make_checkpoint(tmp_path), eos_token_id=config)
    generation(tmp_path, also)
    assert ends(tmp_path) == expected


@pytest.mark.parametrize(
    ("family", "expected"), [("llama", (2,)), ("mistral", (2,)), ("qwen2", ()), ("qwen3", ())]
)
def test_without_the_field_it_is_the_familys(tmp_path: Path, family: str, expected: tuple[int, ...]) -> None:
    change_config(make_checkpoint(tmp_path, family), drop=("eos_token_id",))
    assert ends(tmp_path) == expected
    generation(tmp_path, {"eos_token_id": 7})
    assert ends(tmp_path) == (7,)


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '"eos"', "[" * 100_000, "\udcff"])
def test_a_malformed_generation_config_is_named(tmp_path: Path, content: str) -> None:
    file = make_checkpoint(tmp_path) / "generation_config.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(HeliosError, match="cannot be read as JSON") as caught:
        Checkpoint.open(tmp_path)
    assert caught.value.field == str(file)
