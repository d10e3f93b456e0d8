"""Tiny random checkpoints of every supported family, in the layout that transformers reads, for any test to
use.

`make_checkpoint` writes config.json, safetensors (sharded on request) and a byte-level tokenizer, so that
the whole server runs on the result within milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "opt", "gemma3_text")
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 64, 4, 2, 16, 128, 320
SPECIAL = ("<|begin|>", "<|end|>", "<|user|>")
BOS_ID, EOS_ID = 256, 257
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "opt": "OPTForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
_OPT_POSITIONS = 2  # rows of the table before that of the first token
WINDOW = 24  # tokens, of Gemma's sliding layers: every other one


def make_checkpoint(
    directory: Path,
    family: str = "llama",
    layers: int = 4,
    dtype: torch.dtype = torch.float64,
    tied: bool = True,
    seed: int = 0,
    shards: int = 1,
    **config_overrides: Any,
) -> Path:
    """Writes a checkpoint into `directory` and returns it. Overrides go into config.json as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    config = _config(family, layers, dtype, tied) | config_overrides
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    generator = torch.Generator().manual_seed(seed)
    shapes = _shapes(config)
    tensors = {name: _random(name, shape, config, generator).to(dtype) for name, shape in shapes.items()}
    _save(directory, tensors, layers, shards)
    write_tokenizer(directory)
    return directory


def without_tokenizer(directory: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).unlink(missing_ok=True)
    return directory


def spoil_token(directory: Path, token: int, value: float = float("nan")) -> Path:
    """Makes a token's embedding not finite: whoever reads it has such keys, values and logits.

    For a model whose LM head is its own; its row is made one that greedy rows do not choose.
    """
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors["model.embed_tokens.weight"][token] = value
    tensors["lm_head.weight"][token] = 0
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def write_tokenizer(directory: Path) -> None:
    """A tokenizer of 256 bytes, three special tokens and a few merges; all ids below VOCAB have a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("e", "r"), ("t", "h"), ("i", "n"), ("o", "n"), ("Ġ", "t")]
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    vocab |= {token: BOS_ID + index for index, token in enumerate(SPECIAL)}
    vocab |= {"".join(pair): 300 + index for index, pair in enumerate(merges)}
    free = sorted(set(range(VOCAB)).difference(vocab.values()))
    vocab |= {f"<{index}>": index for index in free}  # no text is read as one of these; a model may write it
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "chat_template": "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def _config(family: str, layers: int, dtype: torch.dtype, tied: bool) -> dict[str, Any]:
    shared = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return shared | (_OPT if family == "opt" else _GEMMA if family == "gemma3_text" else _LLAMA)


_LLAMA: dict[str, Any] = {
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": INTERMEDIATE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "sliding_window": None,
}
_OPT: dict[str, Any] = {
    "ffn_dim": INTERMEDIATE,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "word_embed_proj_dim": HIDDEN,
}
_GEMMA: dict[str, Any] = {
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": INTERMEDIATE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "rope_local_base_freq": 500.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
}


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, vocab, opt = config["hidden_size"], config["vocab_size"], config["model_type"] == "opt"
    decoder = "model.decoder" if opt else "model"
    shapes: dict[str, tuple[int, ...]] = {f"{decoder}.embed_tokens.weight": (vocab, hidden)}
    if opt:
        rows = config["max_position_embeddings"] + _OPT_POSITIONS
        shapes["model.decoder.embed_positions.weight"] = (rows, hidden)
    final_norm = "final_layer_norm" if opt else "norm"
    shapes |= {f"{decoder}.{name}": shape for name, shape in _norm(config, final_norm, hidden).items()}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in (_opt_layer(config) if opt else _layer_shapes(config)).items():
            shapes[f"{decoder}.layers.{layer}.{name}"] = shape
    return shapes


def _norm(config: dict[str, Any], name: str, size: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias") if config["model_type"] == "opt" else ("weight",)
    return {f"{name}.{part}": (size,) for part in parts}


def _opt_layer(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["ffn_dim"]
    linears = {f"self_attn.{part}": (hidden, hidden) for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
    linears |= {"fc1": (inner, hidden), "fc2": (hidden, inner)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linears.items()}
    if config.get("enable_bias", True):
        shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    return shapes | _norm(config, "self_attn_layer_norm", hidden) | _norm(config, "final_layer_norm", hidden)


def _layer_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    linears = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linears.items()}
    for name in _biased(config):
        shapes[f"{name}.bias"] = linears[name][:1]
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma3_text":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes |= {f"{norm}.weight": (hidden,) for norm in norms}
    if config["model_type"] in ("qwen3", "gemma3_text"):
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    return shapes


def _biased(config: dict[str, Any]) -> list[str]:
    qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    names = list(qkv) if config["model_type"] == "qwen2" else []
    if config.get("attention_bias"):
        names += [*qkv, "self_attn.o_proj"]
    if config.get("mlp_bias"):
        names += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    return names


def _random(name: str, shape: tuple[int, ...], config: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Norms near 1, biases small, matrices that keep variance: every part matters and logits are decisive."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    gemma, opt = (config["model_type"] == family for family in ("gemma3_text", "opt"))
    if len(shape) == 1:
        offset = gemma or (opt and name.endswith(".bias"))
        return noise * 0.2 + (0.0 if offset else 1.0)
    # Gemma scales its embedding: were it larger, a tied head would say the token that it reads, always.
    decisive = shape[0] >= VOCAB and "positions" not in name and not gemma
    return noise * (3.0 / shape[-1] ** 0.5 if decisive else 1.0 / shape[-1] ** 0.5)


def _save(directory: Path, tensors: dict[str, Tensor], layers: int, shards: int) -> None:
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        _, _, within = name.partition(".layers.")
        layer = int(within.split(".")[0]) if within else 0
        shard = f"model-{layer * shards // layers + 1:05d}-of-{shards:05d}.safetensors"
        files.setdefault(shard, {})[name] = tensor
    for shard, content in files.items():
        save_file(content, directory / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, content in files.items() for name in content}
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
