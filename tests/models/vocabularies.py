"""Small tokenizers of the shapes that real ones have and the checkpoints' own has not."""

from __future__ import annotations

from pathlib import Path

from helios_server.models.tokenizer import Tokenizer
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Fast

SPECIAL = ("<unk>", "<s>", "</s>")
PIECES = ("▁", "▁▁", "▁Hello", "▁world", "▁a", "a", "b", "n", ",", "\n")


def straddling(directory: Path, text: str) -> Tokenizer:
    """A byte-level BPE, as Qwen 3's and Llama 3's are, trained on `text` cut between its characters' bytes.

    So tokens hold the end of one character and the beginning of the next.
    """
    tokenizer = Fast(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    [(spelled, _)] = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    pieces = [spelled[place : place + 2] for place in range(2, len(spelled) - 1, 3)]
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, special_tokens=["<|im_end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(pieces * 4, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _opened(tokenizer, directory)


def sentencepiece(directory: Path, decoder: str = "strip") -> Tokenizer:
    """The shape of Llama 2, Mistral and TinyLlama: words begin with a space, the first one's is dropped, rare
    characters are spelt byte by byte. decoder: "strip" or "metaspace", as converters write it."""
    words = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Fast(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    metaspace = [decoders.ByteFallback(), decoders.Metaspace()]
    tokenizer.decoder = decoders.Sequence(strip if decoder == "strip" else metaspace)
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return _opened(tokenizer, directory)


def pieces(*words: str) -> list[int]:
    """Ids of the sentencepiece vocabulary; what is no piece of it is spelt byte by byte."""
    known = {word: index for index, word in enumerate((*SPECIAL, *("",) * 256, *PIECES))}
    ids: list[int] = []
    for word in words:
        ids += [known[word]] if word in known else [len(SPECIAL) + byte for byte in word.encode()]
    return ids


def _opened(tokenizer: Fast, directory: Path) -> Tokenizer:
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return Tokenizer.open(directory)
