"""Small tokenizers built as each family's published ones are: its kind of model, normaliser, pieces and
special tokens, the class that its tokenizer_config.json names, and its chat template.

The templates are the published ones, less what only tools and images reach.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Fast

_TEXT = [
    'Who is Ahab? A captain of whales, ä 漢 🙂 and it\'s 1851! <b>&amp;</b> "quoted"',
    "system user assistant model Be brief. {{ bos_token }} {% raw %}\n\n",
] * 4
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _GPT4.replace(r"\p{N}{1,3}", r"\p{N}")


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / f"{name}.jinja").read_text()


def _byte_level(special: list[str], split: str = "", nfc: bool = False) -> Fast:
    """GPT-2's way, or with a pattern of its own."""
    made = Fast(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    parts = [pre_tokenizers.Split(Regex(split), "isolated"), level] if split else [level]
    made.pre_tokenizer = pre_tokenizers.Sequence(parts) if split else level
    if nfc:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        _TEXT, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
    return made


def _pieces(special: list[str], gemma: bool = False) -> Fast:
    """Sentencepiece's way, as converters write it: spaces as ▁, rare characters byte by byte."""
    words = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *sorted({*"".join(_TEXT)} - {" ", "漢", "🙂"}),
    ]
    merges = [
        ("▁", "W"),
        ("h", "o"),
        ("i", "s"),
        ("▁", "A"),
        ("▁A", "h"),
        ("a", "b"),
        ("▁", "is"),
        ("▁W", "ho"),
    ]
    for left, right in merges:
        if left + right not in words:
            words.append(left + right)
    vocabulary = {word: index for index, word in enumerate(words)}
    made = Fast(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if gemma:
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    end = [] if gemma else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *end]
    )
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in special])
    return made


def _beginning(made: Fast, bos: str) -> Fast:
    """What it puts before a text, and not before a chat whose template does."""
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, made.token_to_id(bos))]
    )
    return made


def _smollm2() -> tuple[Fast, dict[str, Any]]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": special[1], "eos_token": special[2]}
    return _byte_level(special), config | {"chat_template": _template("chatml")}


def _llama2() -> tuple[Fast, dict[str, Any]]:
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "add_bos_token": True,
        "add_eos_token": False,
    }
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _beginning(_pieces(["<unk>", "<s>", "</s>"]), "<s>"), config | tokens | {
        "chat_template": _template("llama2")
    }


def _llama3() -> tuple[Fast, dict[str, Any]]:
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[4]}
    return _beginning(_byte_level(special, _GPT4), special[0]), config | {
        "chat_template": _template("llama3")
    }


def _mistral() -> tuple[Fast, dict[str, Any]]:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _beginning(_pieces(special), "<s>"), config | tokens | {"chat_template": _template("mistral")}


def _qwen(template: str) -> Callable[[], tuple[Fast, dict[str, Any]]]:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": special[2]}
    return lambda: (_byte_level(special, _QWEN, nfc=True), config | {"chat_template": _template(template)})


def _gemma3() -> tuple[Fast, dict[str, Any]]:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    config = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>"}
    return _beginning(_pieces(special, gemma=True), "<bos>"), config | tokens | {
        "chat_template": _template("gemma3")
    }


def _opt() -> tuple[Fast, dict[str, Any]]:
    """Published without a template; a tuned one brings its own."""
    special = ["<pad>", "</s>", "<unk>"]
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "unk_token": "</s>",
        "pad_token": "<pad>",
    }
    tokens = {"bos_token": "</s>", "eos_token": "</s>"}
    return _beginning(_byte_level(special), "</s>"), config | tokens | {"chat_template": _template("llama2")}


FAMILIES: dict[str, tuple[str, Callable[[], tuple[Fast, dict[str, Any]]]]] = {
    "SmolLM2": ("llama", _smollm2),
    "SmolLM": ("smollm", _smollm2),
    "Llama 2": ("llama", _llama2),
    "Llama 3": ("llama", _llama3),
    "Mistral": ("mistral", _mistral),
    "Qwen 2": ("qwen2", _qwen("chatml")),
    "Qwen 3": ("qwen3", _qwen("qwen3")),
    "Gemma 3": ("gemma3_text", _gemma3),
    "OPT": ("opt", _opt),
}
"""By the name that people know: the family, and what makes its tokenizer and tokenizer_config.json."""


def write_family(folder: Path, name: str) -> None:
    family, make = FAMILIES[name]
    tokenizer, config = make()
    if family == "opt":  # in two files, as published
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    known = family if family != "smollm" else "llama"  # transformers has no smollm
    (folder / "config.json").write_text(json.dumps({"model_type": known}))
