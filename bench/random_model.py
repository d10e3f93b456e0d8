"""A checkpoint of random numbers in a real model's shape: good for speed and memory, never for quality.

`python -m bench.random_model DIRECTORY`: the shape of Llama-3.2-3B (28 layers, 3.2 billion parameters in
bfloat16, 6.4 GB), for benches on an accelerator (`bench.budget --model file://DIRECTORY --device cuda`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.checkpoints import write_tokenizer

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "dtype": "bfloat16",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    write(parser.parse_args().directory)


def write(directory: Path) -> None:
    """One file, the same for the same device."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    tensors = {name: _random(shape, generator).cpu() for name, shape in _shapes()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(directory)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    q, kv = (CONFIG["head_dim"] * CONFIG[f"num_{heads}_heads"] for heads in ("attention", "key_value"))
    yield "model.embed_tokens.weight", (CONFIG["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, shape in (
            ("input_layernorm", (hidden,)),
            ("self_attn.q_proj", (q, hidden)),
            ("self_attn.k_proj", (kv, hidden)),
            ("self_attn.v_proj", (kv, hidden)),
            ("self_attn.o_proj", (hidden, q)),
            ("post_attention_layernorm", (hidden,)),
            ("mlp.gate_proj", (inner, hidden)),
            ("mlp.up_proj", (inner, hidden)),
            ("mlp.down_proj", (hidden, inner)),
        ):
            yield f"model.layers.{layer}.{name}.weight", shape


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Norms of one; matrices that keep the variance of what they multiply."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    noise = torch.randn(shape, generator=generator, dtype=torch.bfloat16, device=generator.device)
    return noise / shape[-1] ** 0.5


if __name__ == "__main__":
    main()
