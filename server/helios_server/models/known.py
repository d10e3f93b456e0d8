"""Shapes of published models by name, so that one can ask whether they fit without fetching anything.

Read by `described.py`. A row holds what the model's own config.json says, so that it is read as any other; no
row knows weights, and nothing is served from here.
"""

from __future__ import annotations

from typing import Any

_OPT = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048}
_LLAMA_2 = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096}

KNOWN: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192, "hidden_size": 576,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "intermediate_size": 1536, "tie_word_embeddings": True,
    },
    "OPT-1.3B": _OPT | {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "ffn_dim": 8192,
    },
    "OPT-6.7B": _OPT | {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "ffn_dim": 16384,
    },
    "Llama-2-7B": _LLAMA_2 | {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
    },
    "Llama-2-70B": _LLAMA_2 | {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672,
    },
    "Llama-3-8B": {
        "model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 8192, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336,
    },
    "Qwen2.5-32B": {
        "model_type": "qwen2", "vocab_size": 152064, "max_position_embeddings": 131072, "hidden_size": 5120,
        "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8,
        "intermediate_size": 27648,
    },
    "CodeLlama-34B": {
        "model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 16384, "hidden_size": 8192,
        "num_hidden_layers": 48, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 22016,
    },
}  # fmt: skip
