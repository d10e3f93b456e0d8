"""The text of a stream is what decoding the prompt with the output has beyond decoding the prompt."""

from __future__ import annotations

import pytest
from helios_server.models.tokenizer import Tokenizer
from hypothesis import given
from hypothesis import strategies as st

from tests.models.vocabularies import pieces, sentencepiece, straddling

HANGUL = "키키키키키키"
SPELT = ["€", "é", "😀", "ก", "한"]


@pytest.fixture(scope="module")
def hangul(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return straddling(tmp_path_factory.mktemp("hangul"), HANGUL)


@pytest.fixture(scope="module", params=["strip", "metaspace"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return sentencepiece(tmp_path_factory.mktemp("llama"), request.param)


def streamed(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    stream = tokenizer.stream(prompt_ids=prompt or [])
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


# -- tokens that straddle characters


def test_characters_come_out_whole_and_as_soon_as_they_are(hangul: Tokenizer) -> None:
    ids = hangul.encode(HANGUL)
    assert any(len(hangul.decode([token_id])) == 2 for token_id in ids)  # an end and a beginning
    deltas = streamed(hangul, ids)
    assert "".join(deltas) == HANGUL
    assert [delta for delta in deltas if delta] == list(HANGUL)


@pytest.mark.parametrize("text", [HANGUL * 300, HANGUL + " a" + HANGUL, "ab" + HANGUL, "日本語" * 40])
def test_however_long_the_straddling_goes_on(hangul: Tokenizer, text: str) -> None:
    assert "".join(streamed(hangul, hangul.encode(text))) == text


@pytest.mark.parametrize(
    "text",
    ["👩‍👩‍👧‍👦🏳️‍🌈", "e\u0301a\u0308o\u0302", "नमस्ते", "𝔘𝔫𝔦", "a\ufffdb", "\ufffd", "\u200b\u200d"],
)
def test_text_of_many_bytes_comes_back_from_any_place_on(hangul: Tokenizer, text: str) -> None:
    ids = hangul.encode(text)
    deltas = streamed(hangul, ids)
    assert "".join(deltas) == text
    assert all("\ufffd" not in delta for delta in deltas) or "\ufffd" in text
    for place in range(len(ids)):
        rest = "".join(streamed(hangul, ids[place:], ids[:place]))
        begun = hangul.decode(ids[:place]).removesuffix("\ufffd")
        assert text in (begun + rest, begun + "\ufffd" + rest)


@given(ids=st.lists(st.one_of(st.integers(0, 279), st.sampled_from([170, 225, 98, 257])), max_size=150))
def test_any_ids_of_bytes_stream_to_what_they_decode_to(hangul: Tokenizer, ids: list[int]) -> None:
    known = [token_id for token_id in ids if hangul.decode([token_id], skip_special=False)]
    assert "".join(streamed(hangul, known)) == hangul.decode(known)


def test_bytes_that_end_too_early_are_told_at_the_end(hangul: Tokenizer) -> None:
    ids = hangul.encode("a키")
    assert streamed(hangul, ids[:-1]) == ["a", "", "", "\ufffd"]


def test_special_tokens_leave_no_trace_even_inside_a_character(hangul: Tokenizer) -> None:
    (end,) = hangul.encode("<|im_end|>")
    first, *rest = hangul.encode("키a")
    assert "".join(streamed(hangul, [end, first, end, end, end, end, *rest, end])) == "키a"


# -- the end of the prompt


def test_a_continuation_keeps_its_first_space(llama: Tokenizer) -> None:
    assert "".join(streamed(llama, pieces("▁world", "▁a"), pieces("<s>", "▁Hello"))) == " world a"


def test_a_token_without_text_takes_nothing_with_it(llama: Tokenizer) -> None:
    ids = pieces("▁world", "</s>", "▁world", "<s>", "<s>", "▁a")
    assert streamed(llama, ids, pieces("▁Hello")) == [" world", "", " world", "", "", " a", ""]


def test_a_prompt_that_ends_in_tokens_without_text_keeps_the_space(llama: Tokenizer) -> None:
    prompt = pieces("▁Hello", *["</s>"] * 40)
    assert "".join(streamed(llama, pieces("▁world"), prompt)) == " world"


@pytest.mark.parametrize("before", [(), ("▁Hello",), ("<s>",), ("한",) * 50, ("a", "😀")])
@pytest.mark.parametrize("character", SPELT)
def test_the_rest_of_the_prompts_last_character_is_the_outputs(
    llama: Tokenizer, before: tuple[str, ...], character: str
) -> None:
    spelt = pieces(character)
    for begun in range(1, len(spelt)):
        prompt, output = pieces(*before) + spelt[:begun], spelt[begun:] + pieces("▁a")
        assert "".join(streamed(llama, output, prompt)) == character + " a"


def test_the_same_where_tokens_straddle(hangul: Tokenizer) -> None:
    ids = hangul.encode(HANGUL * 10)
    for place in range(len(ids)):
        said = hangul.decode(ids[:place]).removesuffix("\ufffd")
        assert said + "".join(streamed(hangul, ids[place:], ids[:place])) == HANGUL * 10


def test_a_prompt_that_ends_broken_stays_so_when_nothing_mends_it(llama: Tokenizer) -> None:
    prompt = pieces("▁Hello") + pieces("€")[:2]
    assert "".join(streamed(llama, pieces("a", "▁world"), prompt)) == "a world"
    assert "".join(streamed(llama, [], prompt)) == ""


@st.composite
def sentences(draw: st.DrawFn) -> list[int]:
    """Ids of text: words, spaces, special tokens, characters that are spelt whole, long runs of them too."""
    words = st.sampled_from(["▁", "▁▁", "▁Hello", "▁world", "a", ",", "<s>", "</s>", *SPELT])
    return pieces(*(word for word in draw(st.lists(words, max_size=30)) for _ in range(draw(_REPEATS))))


_REPEATS = st.sampled_from([1, 1, 1, 9])


@given(ids=sentences(), share=st.floats(0, 1))
def test_output_is_what_decoding_has_beyond_the_prompt(
    llama: Tokenizer, ids: list[int], share: float
) -> None:
    place = round(share * len(ids))
    whole = llama.decode(ids)
    complete = place
    while not whole.startswith(llama.decode(ids[:complete])):
        complete -= 1  # the prompt ends inside a character
    expected = whole[len(llama.decode(ids[:complete])) :]
    assert "".join(streamed(llama, ids[place:], ids[:place])) == expected


@given(ids=st.lists(st.integers(0, 268), max_size=80))
def test_no_ids_stop_a_stream(llama: Tokenizer, ids: list[int]) -> None:
    """A sentencepiece decoder spoils a whole run of bytes for one that is wrong; what is out stays out."""
    text = "".join(streamed(llama, [*ids, *pieces("▁world")], pieces("▁Hello")))
    assert text.endswith(" world")
    if not any(2 < token_id < 259 for token_id in ids):
        assert "Hello" + text == llama.decode([*pieces("▁Hello"), *ids, *pieces("▁world")])


def test_a_run_of_bytes_that_breaks_keeps_the_characters_that_are_out(llama: Tokenizer) -> None:
    broken = pieces("€") + pieces("€")[:1] + pieces("a", "▁world")
    assert "".join(streamed(llama, broken, pieces("▁Hello"))) == "€\ufffda world"
    assert "".join(streamed(llama, pieces("€") + pieces("€")[:2], pieces("▁Hello"))) == "€\ufffd\ufffd"
