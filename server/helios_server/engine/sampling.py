"""What a caller may ask of the choice of tokens, checked once, when it is written down.

Built by the doors (`rpc/`) and by tests, read by the scheduler (how long may it run) and the sampler (how to
choose). It must import no torch: sequences carry it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from helios_server.errors import InvalidRequest

DEFAULT_MAX_TOKENS = 256
MAX_STOP_STRINGS = 8
MAX_STOP_TOKENS = 1024
"""Each token of an answer is looked for among them."""
GREEDY_BELOW = 1e-5
"""Of temperature: only the largest logit has a chance then, and dividing by less may overflow."""
LEAST_PENALTY, LARGEST_PENALTY = 0.001, 1000.0
"""Repetition penalties that no logit of a model that works can be multiplied or divided by to infinity."""
_FLOAT32_MAX = 3.4028234663852886e38
_SEED_BITS = 64


@dataclass(frozen=True)
class SamplingParams:
    """One request's sampling. Raises InvalidRequest, naming the field, for a value out of range.

    max_tokens, min_tokens: new tokens (max None: DEFAULT_MAX_TOKENS, or what the context leaves);
    temperature: divides the logits, below GREEDY_BELOW the choice is greedy; top_k: tokens, 0 is off; top_p,
    min_p: probabilities; repetition_penalty: factor over prompt and output, 1 is off; stop: strings that end
    the text and are not part of it; stop_token_ids: vocabulary ids; seed: 64 bits, None: derived from the
    request's id.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens is None or self.max_tokens >= 1, self.max_tokens, "1 or more")
        _check("min_tokens", self.min_tokens >= 0, self.min_tokens, "0 or more")
        within = self.max_tokens is None or self.min_tokens <= self.max_tokens
        _check("min_tokens", within, self.min_tokens, f"at most max_tokens ({self.max_tokens})")
        warm = 0 <= self.temperature <= _FLOAT32_MAX
        _check("temperature", warm, self.temperature, "a finite float32, 0 (greedy) or more")
        _check("top_k", self.top_k >= 0, self.top_k, "0 (off) or more")
        _check("top_p", 0 < self.top_p <= 1, self.top_p, "in (0, 1]")
        _check("min_p", 0 <= self.min_p <= 1, self.min_p, "in [0, 1]")
        penalty = self.repetition_penalty
        bounds = f"in [{LEAST_PENALTY:g}, {LARGEST_PENALTY:g}]"
        _check("repetition_penalty", LEAST_PENALTY <= penalty <= LARGEST_PENALTY, penalty, bounds)
        _check(
            "stop", len(self.stop) <= MAX_STOP_STRINGS, len(self.stop), f"at most {MAX_STOP_STRINGS} strings"
        )
        _check("stop", all(self.stop), '""', "strings that are not empty")
        ends = self.stop_token_ids
        _check(
            "stop_token_ids",
            len(ends) <= MAX_STOP_TOKENS,
            f"{len(ends)} ids",
            f"at most {MAX_STOP_TOKENS} ids",
        )
        least = min(ends, default=0)
        _check("stop_token_ids", least >= 0, least, "token ids")
        in_range = self.seed is None or 0 <= self.seed < 1 << _SEED_BITS
        _check("seed", in_range, self.seed, f"an unsigned integer of {_SEED_BITS} bits")

    @property
    def greedy(self) -> bool:
        """Whether the token is the one with the largest logit, with no noise added."""
        return self.temperature < GREEDY_BELOW

    def seed_for(self, request_id: str) -> int:
        """The seed given, or one that the same request id always yields."""
        if self.seed is not None:
            return self.seed
        return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[: _SEED_BITS // 8], "big")


def _check(field: str, holds: bool, value: object, expected: str) -> None:
    if not holds:
        raise InvalidRequest(f"sampling_params.{field}", f"{value} is out of range", f"Give {expected}")
