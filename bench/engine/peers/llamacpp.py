"""llama.cpp, by the xllamacpp wheel: its server in this process. The wheel is built for AVX2."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engine.adapter import Adapter, Cannot, Ids, Peer, Setting, Variant

_FORCED = 1000.0
"""Added to a logit, it makes greedy choice take that token; the probability told is of the logits before."""


class LlamaCpp:
    def __init__(self, setting: Setting) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(setting.folder / "model.gguf")
        parameters.n_ctx = setting.rows * (setting.tokens + 16)
        parameters.n_parallel = setting.rows
        parameters.cpuparams.n_threads = setting.threads
        parameters.cpuparams_batch.n_threads = setting.threads
        parameters.cache_ram_mib = 0
        parameters.warmup = False
        self._server: Any = xllamacpp.Server(parameters)
        weights = "Q8_0 weights (int8 in groups of 32)" if setting.variant == "q8_0" else "fp16 weights"
        self.numerics = f"{weights}, keys and values fp16; AVX2, as the wheel is built"

    def generate(self, prompts: Sequence[Ids], new: int) -> list[list[int]]:
        asked = {"n_predict": new, "cache_prompt": False, "ignore_eos": True}
        answers = self._complete([list(prompt) for prompt in prompts], asked)
        return [list(answer["tokens"]) for answer in answers]

    def score(self, windows: Sequence[Ids]) -> float:
        """A request a token, which is forced: the server tells probabilities of what it samples only."""
        return sum(self._bits(list(w[:place]), w[place]) for w in windows for place in range(1, len(w)))

    def _bits(self, before: list[int], token: int) -> float:
        asked = {"n_predict": 1, "cache_prompt": True, "n_probs": 1, "logit_bias": [[token, _FORCED]]}
        [answer] = self._complete([before], asked | {"id_slot": 0})
        [told] = answer["completion_probabilities"]
        if told["id"] != token:
            raise Cannot("the server did not take the token that was forced")
        return -float(told["logprob"]) / math.log(2)

    def _complete(self, prompts: list[list[int]], asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers in the order of the prompts; the call that Python has tells no token ids."""
        request = asked | {"prompt": prompts, "temperature": 0.0, "return_tokens": True, "stream": False}
        posted = urllib.request.Request(
            f"{self._server.listening_address}/completion",
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(posted) as answer:
            found = json.load(answer)
        answers = found if isinstance(found, list) else [found]
        return sorted(answers, key=lambda answer: int(answer.get("index", 0)))


# -- from a checkpoint ---------------------------------------------------------------------------------------

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def _prepare(model: Path, folder: Path, variant: str) -> None:
    """Writes a Llama checkpoint of one file as GGUF."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise Cannot(f"only Llama checkpoints are converted here, not {config['model_type']}")
    kind = gguf.GGMLQuantizationType.Q8_0 if variant == "q8_0" else gguf.GGMLQuantizationType.F16
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    _write_shape(writer, config)
    _write_tokens(writer, model, config)
    for name, tensor in load_file(model / "model.safetensors").items():
        wide = tensor.astype("float32")
        if wide.ndim == 1:
            writer.add_tensor(_name(name), wide)
            continue
        wide = _interleaved(name, wide, config)
        writer.add_tensor(_name(name), gguf.quants.quantize(wide, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])


def _write_tokens(writer: Any, model: Path, config: dict[str, Any]) -> None:
    """Prompts come as ids and answers go as ids: the vocabulary's words are written, and no more is asked."""
    read = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    words = {index: word for word, index in read["model"]["vocab"].items()}
    words |= {added["id"]: added["content"] for added in read["added_tokens"]}
    special = {added["id"] for added in read["added_tokens"] if added["special"]}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in read["model"]["merges"]]
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([words.get(index, f"<{index}>") for index in range(size)])
    writer.add_token_types([3 if index in special else 1 for index in range(size)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config.get("pad_token_id") or config["eos_token_id"])
    writer.add_add_bos_token(False)


def _name(name: str) -> str:
    if (whole := name.removesuffix(".weight")) in _WHOLE:
        return f"{_WHOLE[whole]}.weight"
    _, _, layer, part = whole.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


def _interleaved(name: str, weights: Any, config: dict[str, Any]) -> Any:
    """GGUF interleaves the two halves of each rotary head; Hugging Face keeps them apart."""
    of_heads: dict[str, Callable[[], int]] = {
        ".q_proj.": lambda: config["num_attention_heads"],
        ".k_proj.": lambda: config["num_key_value_heads"],
    }
    for part, heads in of_heads.items():
        if part in name:
            half = weights.shape[0] // heads() // 2
            apart = weights.reshape(heads(), 2, half, weights.shape[1])
            return apart.swapaxes(1, 2).reshape(weights.shape)
    return weights


def _open(setting: Setting) -> Adapter:
    return LlamaCpp(setting)


PEER = Peer(
    title="llama.cpp",
    variants={"f16": Variant(16), "q8_0": Variant(8)},
    open=_open,
    requirements=("xllamacpp==2026.10.11549", "gguf==0.19.0", "safetensors", "numpy"),
    pinned={"avx2": {}},
    prepare=_prepare,
)
