"""Stop strings: in the text, across tokens, and as special tokens that the text does not show."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_server.engine.answer import StopText
from helios_server.engine.request import FinishReason, TokensEvent
from hypothesis import given
from hypothesis import strategies as st

from tests.checkpoints import SPECIAL, make_checkpoint
from tests.engine.helpers import Stream, prompt_of, running, send
from tests.models.vocabularies import SPECIAL as PIECES_SPECIAL
from tests.models.vocabularies import sentencepiece

HIDDEN = {1: "<|im_end|>", 2: "<|eot|>", 3: "<|im_end|><|eot|>"}
USER_ID = 258


def pushed(stops: tuple[str, ...], *parts: str | int) -> StopText:
    """Text, and ids of hidden tokens, as they come; the end after them."""
    text = StopText(stops, HIDDEN)
    for part in parts:
        text.push(part if isinstance(part, str) else text.mark_of(part), True)
    text.rest()
    return text


@pytest.mark.parametrize(
    ("stops", "parts", "text", "matched"),
    [
        (("<|im_end|>",), ("ab", 1, "c"), "ab", "<|im_end|>"),
        (("<|im_end|>",), ("ab<|im", "_end|>c"), "ab", "<|im_end|>"),
        (("<|im_end|>",), ("ab", 2, "c"), "abc", ""),
        (("<|eot|>", "<|im_end|>"), ("ab", 2, 1), "ab", "<|eot|>"),
        (("x", "<|im_end|>"), ("abx", 1), "ab", "x"),
        (("b<|im_end|>\nc",), ("ab", 1, "\n", "cd"), "a", "b<|im_end|>\nc"),
        (("b<|im_end|>\nc",), ("ab", 1, "\n", "d"), "ab\nd", ""),
        (("<|im_end|><|im_end|>",), ("a", 1, "b", 1, 1), "ab", "<|im_end|><|im_end|>"),
        (("<|im_end|>", "|>"), ("a", 2, "b", 1), "ab", "<|im_end|>"),
        (("|>",), ("a", 1, "b"), "ab", ""),
        (("<|im_end|><|eot|>",), ("a", 3), "a", "<|im_end|><|eot|>"),
    ],
)
def test_a_hidden_token_is_met_by_its_name(
    stops: tuple[str, ...], parts: tuple[str | int, ...], text: str, matched: str
) -> None:
    seen = pushed(stops, *parts)
    assert (seen.emitted, seen.matched) == (text, matched)


@pytest.mark.parametrize(
    ("stops", "text", "matched"),
    [
        (("abcdef", "cd"), "ab", "cd"),
        (("cd", "bcd"), "a", "bcd"),
        (("z" * 100_000, "ef"), "abcd", "ef"),
        (("abcdefghij" * 5_000,), "abcdefgh", ""),
        (("aa", "h"), "abcdefg", "h"),
    ],
)
def test_the_first_one_that_is_complete_ends_the_text_however_it_is_cut(
    stops: tuple[str, ...], text: str, matched: str
) -> None:
    for parts in (("abcdefgh",), tuple("abcdefgh"), ("abc", "def", "gh"), ("a", "bcdefg", "h")):
        seen = pushed(stops, *parts)
        assert (seen.emitted, seen.matched) == (text, matched), parts


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    parts=st.lists(st.text("ab", max_size=4), max_size=12),
)
def test_what_is_cut_otherwise_ends_no_other(stops: list[str], parts: list[str]) -> None:
    whole = "".join(parts)
    seen, by_character = pushed(tuple(stops), *parts), pushed(tuple(stops), *whole)
    assert (seen.emitted, seen.matched) == (by_character.emitted, by_character.matched)
    ends = [whole.index(stop) + len(stop) for stop in stops if stop in whole]
    assert seen.emitted == (whole[: min(ends) - len(seen.matched)] if ends else whole)


def text_of(stream: Stream) -> str:
    return "".join(event.text for event in stream.events if isinstance(event, TokensEvent))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("stops") / "tiny", layers=2)


def test_a_special_token_ends_the_answer_before_it(tiny: Path) -> None:
    wild = {"max_tokens": 200, "temperature": 8.0, "ignore_eos": True}
    with running(tiny) as engine:
        for seed in range(50):
            free = send(engine, prompt_of(20), seed=seed, **wild).result()
            if USER_ID in free.output_ids[20:]:
                break
        place = free.output_ids.index(USER_ID)
        stopped = send(engine, prompt_of(20), seed=seed, stop=("never", SPECIAL[2]), **wild)
        end = stopped.result()
        late = send(
            engine, prompt_of(20), seed=seed, stop=(SPECIAL[2],), min_tokens=place + 2, **wild
        ).result()
    assert (end.reason, end.matched_stop) == (FinishReason.STOP, SPECIAL[2])
    assert end.output_ids == free.output_ids[: place + 1]
    assert end.text == text_of(stopped)
    assert free.text.startswith(end.text)
    assert len(late.output_ids) > place + 1


def test_an_answer_of_a_sentencepiece_model_goes_on_where_its_prompt_ends(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "llama", layers=2, vocab_size=259 + 10)
    tokenizer = sentencepiece(path)
    prompt = (*tokenizer.encode("Hello", add_special=False), len(PIECES_SPECIAL) + 0xE2)
    with running(path) as engine:
        for seed in range(8):
            stream = send(engine, prompt, max_tokens=12, temperature=8.0, seed=seed)
            end = stream.result()
            expected = tokenizer.stream(prompt_ids=prompt)
            text = "".join(map(expected.push, end.output_ids)) + expected.finish()
            assert end.text == text_of(stream) == text
