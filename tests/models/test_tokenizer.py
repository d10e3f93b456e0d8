"""Text to ids and back, and text that streams without ever splitting a character."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from helios_server.errors import CheckpointError
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import LONG_TEXT, Tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Fast
from transformers import AutoTokenizer

from tests.checkpoints import VOCAB, make_checkpoint, without_tokenizer, write_tokenizer

MIXED = "Héllo wörld 日本語 😀👩‍👩‍👧 12345 can't\n\n\t x<|im_end|> ok"


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    return Tokenizer.open(ensure_smollm2())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return Tokenizer.open(path)


def streamed(tokenizer: Tokenizer, ids: list[int], skip_special: bool = True) -> list[str]:
    stream = tokenizer.stream(skip_special)
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_survives_and_streams_whole(tiny: Tokenizer, text: str) -> None:
    ids = tiny.encode(text)
    assert tiny.decode(ids, skip_special=False) == text
    assert "".join(streamed(tiny, ids, skip_special=False)) == text
    assert tiny.bytes_of(ids) == len(text.encode())


def test_real_text_survives_and_streams_whole(smollm2: Tokenizer) -> None:
    ids = smollm2.encode(MIXED)
    assert smollm2.decode(ids, skip_special=False) == MIXED
    assert "".join(streamed(smollm2, ids, skip_special=False)) == MIXED
    assert smollm2.bytes_of(ids) == len(MIXED.encode())


@pytest.mark.parametrize("length", [LONG_TEXT - 1, LONG_TEXT, LONG_TEXT + 1, 9 * LONG_TEXT])
@pytest.mark.parametrize("add_special", [False, True])
def test_a_long_text_is_read_as_a_short_one(tmp_path: Path, length: int, add_special: bool) -> None:
    write_tokenizer(tmp_path)
    reference = Fast.from_file(str(tmp_path / "tokenizer.json"))
    text = (MIXED * length)[:length]
    expected = reference.encode(text, add_special_tokens=add_special).ids
    assert Tokenizer.open(tmp_path).encode(text, add_special) == expected


def test_a_long_text_holds_up_no_other_thread(tiny: Tokenizer) -> None:
    """With the interpreter's lock held, nobody else would run until its end."""
    draw = random.Random(1)
    text = " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(40_000))
    reader, turns = threading.Thread(target=tiny.encode, args=[text]), 0
    reader.start()
    while reader.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 10


@given(st.lists(st.integers(0, 49151), max_size=20))
def test_any_tokens_stream_to_what_they_decode_to(smollm2: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(smollm2, ids)) == smollm2.decode(ids)


def test_a_stream_never_shows_a_broken_character(smollm2: Tokenizer) -> None:
    assert all("\ufffd" not in piece for piece in streamed(smollm2, smollm2.encode(MIXED)))


def test_bytes_that_are_no_text_do_not_hold_the_stream_up(tiny: Tokenizer) -> None:
    lone_continuation = next(i for i in range(VOCAB) if tiny.decode([i]) == "\ufffd")
    pieces = streamed(tiny, [lone_continuation] * 8)
    assert any(pieces[:5])
    assert "".join(pieces) == "\ufffd" * 8


def test_the_converted_tokenizer_is_the_models() -> None:
    path = ensure_smollm2()
    ours, theirs = Tokenizer.open(path), AutoTokenizer.from_pretrained(path)
    assert ours.encode(MIXED) == theirs(MIXED)["input_ids"]
    # What transformers makes of the same model's GGUF file.
    assert ours.encode("Hello World 12345 can't\n\n  x=1") == [
        19556, 2260, 216, 33, 34, 35, 36, 37, 416, 982, 8866, 1792, 45, 33,
    ]  # fmt: skip
    turn = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert turn.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert turn.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (2, 1, 2)


def test_a_model_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r": has no tokenizer \(none of tokenizer.json, "):
        Tokenizer.open(without_tokenizer(make_checkpoint(tmp_path / "model")))


def test_a_model_without_a_readable_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        Tokenizer.open(tmp_path)
