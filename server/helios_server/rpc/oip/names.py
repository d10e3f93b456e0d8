"""The names of tensors and parameters: of Triton's vLLM backend, then of TensorRT-LLM's and Dynamo's.

Read by `requests`, `answers` and `described`. docs/oip.md shows them as tables, and a test holds the two
together. A name that is in no list is refused, with the lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helios_server.rpc.fields import Neutral
from helios_server.rpc.oip.tensors import BOOL, BYTES

VERSION = "1"
"""The one version of the one model: what serves under its name is changed by the operator, not by clients."""
TEXT, JSON, STREAM, DEPTH = "text_input", "sampling_parameters", "stream", "exit_depth"
TEXT_OUTPUT, FINISH_REASON = "text_output", "finish_reason"
EMPTY_FINAL, FINAL = "triton_enable_empty_final_response", "triton_final_response"


@dataclass(frozen=True)
class Kind:
    """What a name takes. many: any number of elements, else one."""

    datatype: str
    many: bool = False


HEEDED: Mapping[str, Kind] = {
    TEXT: Kind(BYTES),
    STREAM: Kind(BOOL),
    JSON: Kind(BYTES),
    "exclude_input_in_output": Kind(BOOL),
    "return_finish_reason": Kind(BOOL),
    "return_cumulative_logprob": Kind(BOOL),
    "return_logprobs": Kind(BOOL),
    "return_num_input_tokens": Kind(BOOL),
    "return_num_output_tokens": Kind(BOOL),
    "return_log_probs": Kind(BOOL),
    "max_tokens": Kind("INT32"),
    "min_tokens": Kind("INT32"),
    "temperature": Kind("FP32"),
    "top_k": Kind("INT32"),
    "top_p": Kind("FP32"),
    "min_p": Kind("FP32"),
    "repetition_penalty": Kind("FP32"),
    "stop_words": Kind(BYTES, many=True),
    "stop_token_ids": Kind("INT32", many=True),
    "ignore_eos": Kind(BOOL),
    "end_id": Kind("INT32"),
    "seed": Kind("UINT64"),
    DEPTH: Kind("INT32"),
    "cache_salt": Kind(BYTES),
}
"""By tensor; but for the first and third also by sampling_parameters, and by the request's parameters."""
OTHER_NAMES: Mapping[str, str] = {
    "streaming": STREAM,
    "random_seed": "seed",
    "min_length": "min_tokens",
    "stop": "stop_words",
}
_ONE, _OFF, _ON, _NONE, _ZERO = Neutral((1,)), Neutral((False,)), Neutral((True,)), Neutral(), Neutral((0,))
_NO_WORDS = Neutral(([], [""]))
_NEUTRAL: Mapping[str, tuple[Kind, Neutral]] = {
    "allowed_token_ids": (Kind("INT32", many=True), Neutral(([],))),
    "bad_words": (Kind(BYTES, many=True), _NO_WORDS),
    "beam_width": (Kind("INT32"), _ONE),
    "best_of": (Kind("INT32"), _ONE),
    "detokenize": (Kind(BOOL), _ON),
    "early_stopping": (Kind(BOOL), _OFF),
    "embedding_bias_weights": (Kind("FP32", many=True), Neutral(([],))),
    "embedding_bias_words": (Kind(BYTES, many=True), _NO_WORDS),
    "frequency_penalty": (Kind("FP32"), _ZERO),
    "image": (Kind(BYTES, many=True), _NO_WORDS),
    "include_stop_str_in_output": (Kind(BOOL), _OFF),
    "length_penalty": (Kind("FP32"), Neutral((0, 1))),
    "logit_bias": (Kind(BYTES), Neutral(({},))),
    "logprobs": (Kind("INT32"), _ZERO),
    "lora_name": (Kind(BYTES), Neutral(("",))),
    "n": (Kind("INT32"), _ONE),
    "num_return_sequences": (Kind("INT32"), _ONE),
    "pad_id": (Kind("INT32"), Neutral(any_of=(int,))),
    "presence_penalty": (Kind("FP32"), _ZERO),
    "prompt_logprobs": (Kind("INT32"), _NONE),
    "return_context_logits": (Kind(BOOL), _OFF),
    "return_generation_logits": (Kind(BOOL), _OFF),
    "return_perf_metrics": (Kind(BOOL), _OFF),
    "skip_special_tokens": (Kind(BOOL), _ON),
    "spaces_between_special_tokens": (Kind(BOOL), _ON),
    "truncate_prompt_tokens": (Kind("INT32"), _NONE),
    "use_beam_search": (Kind(BOOL), _OFF),
}
RESERVED: Mapping[str, Neutral] = {
    "binary_data_output": Neutral(any_of=(bool,)),
    "priority": _ZERO,
    "sequence_id": Neutral((0, "")),
    "sequence_start": _OFF,
    "sequence_end": _OFF,
    "timeout": _ZERO,
    FINAL: Neutral(any_of=(bool,)),
}
"""Of the request's parameters alone."""
NEUTRAL: Mapping[str, Neutral] = {name: neutral for name, (_, neutral) in _NEUTRAL.items()}
KINDS: Mapping[str, Kind] = {
    **HEEDED,
    **{name: kind for name, (kind, _) in _NEUTRAL.items()},
    **{other: HEEDED[name] for other, name in OTHER_NAMES.items()},
}
"""Of every name that a tensor may have."""


OUTPUTS: Mapping[str, Kind] = {
    TEXT_OUTPUT: Kind(BYTES),
    FINISH_REASON: Kind(BYTES),
    "cumulative_logprob": Kind("FP32"),
    "logprobs": Kind(BYTES),
    "num_input_tokens": Kind("UINT32"),
    "num_output_tokens": Kind("UINT32"),
    DEPTH: Kind("INT32", many=True),
    "confidence": Kind("FP32", many=True),
    "cum_log_probs": Kind("FP32"),
    "output_log_probs": Kind("FP32", many=True),
    "sequence_index": Kind("INT32"),
}
LOGPROBS = frozenset({"cumulative_logprob", "logprobs", "cum_log_probs", "output_log_probs"})
"""Outputs for which they are kept."""
RETURNS: Mapping[str, tuple[str, ...]] = {
    "return_finish_reason": (FINISH_REASON,),
    "return_cumulative_logprob": ("cumulative_logprob",),
    "return_logprobs": ("logprobs",),
    "return_num_input_tokens": ("num_input_tokens",),
    "return_num_output_tokens": ("num_output_tokens",),
    "return_log_probs": ("cum_log_probs", "output_log_probs"),
}
"""What asks for an output without naming it."""
