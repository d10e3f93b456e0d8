"""What goes into the engine and what comes out: one request, and the events that answer it.

The only messages between the doors (`rpc/`) and the engine thread; both sides use these names. Plain data:
nothing here may compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from helios_contract.serves import AUTO, WHOLE_SEQUENCES, InPrecision

from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError


@dataclass(frozen=True)
class GenerationRequest:
    """One text to continue."""

    request_id: str
    """Unique among running requests."""
    prompt_ids: tuple[int, ...]
    """Ids of the vocabulary."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    depth: int = 0
    """Layers to run it at; 0: the budget."""
    counted: bool = True
    """False keeps it out of telemetry, audits and detectors (the server's own warm-up)."""
    tokenizer_digest: str = ""
    """Of the tokenizer that made the ids of a text; empty: the caller did."""
    cache_salt: str = ""
    """What it computed is found only by requests with the same one."""


@dataclass(frozen=True)
class Served(InPrecision):
    """By what tokens are produced."""

    candidate: str
    model_uri: str
    revision: str
    backbone: str
    """Fingerprint."""
    exits_digest: str
    """Of the head bundle; empty: none."""
    depth: int
    """Layers."""
    weight_dtype: str = AUTO
    """Precision of the weights."""
    kv_cache_dtype: str = AUTO
    """Precision of keys and values."""
    exit_mode: str = WHOLE_SEQUENCES
    """Where each token left at a depth of its own, the layers that it skipped have keys and values too, made
    of the state that it left with."""


@dataclass(frozen=True)
class Span:
    """A stretch of the output that one `served` produced."""

    from_token: int
    """Index into the output of its first token."""
    served: Served


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Times:
    """Seconds on the monotonic clock."""

    arrived: float
    """Handed to the engine."""
    scheduled: float | None
    """First given a row. None: it never got there."""
    first_token: float | None
    """None: there was none."""
    finished: float
    """Its last event was made."""


@dataclass(slots=True)
class TokensEvent:
    """New tokens, in order. Not frozen, which would cost each token some microseconds; nobody changes it."""

    request_id: str
    index: int
    """Of the first one in the output."""
    token_ids: tuple[int, ...]
    """Ids of the vocabulary."""
    text: str
    """The delta that is certain now."""
    logprobs: tuple[float, ...]
    """Natural log, of the raw logits, one per token; empty unless asked for."""
    confidences: tuple[float, ...]
    """The largest probability at the depth, one per token."""
    breaches: tuple[bool, ...]
    """Whether that is under the exit's threshold, one per token."""
    depth: int
    """Layers that produced them."""


@dataclass(frozen=True)
class FinishedEvent:
    """The end of an answer."""

    request_id: str
    ordinal: int
    """Of the request since boot; 0: it is not counted."""
    reason: FinishReason
    text: str
    """The whole output, without the stop string."""
    output_ids: tuple[int, ...]
    """Ids of the vocabulary."""
    matched_stop: str
    """The string that ended it."""
    prompt_tokens: int
    preemptions: int
    """Times that it went back to waiting."""
    spans: tuple[Span, ...]
    mean_confidence: float
    """Of the output's tokens, in [0, 1]."""
    mean_layers: float
    """Per output token."""
    breaches: int
    """Tokens of the output under their exit's threshold."""
    times: Times
    prefix_queries: int = 0
    """Tokens of the prompt, if it was looked for in the cache."""
    prefix_hits: int = 0
    """Tokens of those that were found there."""


@dataclass(frozen=True)
class FailedEvent:
    """The request ended without an answer, for the reason that the error gives."""

    request_id: str
    error: HeliosError
    spans: tuple[Span, ...] = ()
    """Of what was produced before."""


Event = TokensEvent | FinishedEvent | FailedEvent
OnEvent = Callable[[Event], None]
