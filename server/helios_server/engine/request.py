"""What goes into the engine and what comes out: one request, and the events that answer it.

The only messages between the doors (`rpc/`) and the engine thread; both sides use these names. Plain data:
nothing here may compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError


@dataclass(frozen=True)
class GenerationRequest:
    """One text to continue. prompt_ids: vocabulary ids; depth: layers to run it at, 0 for the budget.

    request_id: unique among running requests. counted: False keeps it out of telemetry, audits and detectors
    (the server's own warm-up).
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    depth: int = 0
    counted: bool = True


@dataclass(frozen=True)
class Served:
    """By what tokens are produced.

    backbone: fingerprint; exits_digest: of the head bundle, "" for none; depth: layers.
    """

    candidate: str
    model_uri: str
    revision: str
    backbone: str
    exits_digest: str
    depth: int


@dataclass(frozen=True)
class Span:
    """A stretch of the output that one `served` produced.

    from_token: index into the output of its first token.
    """

    from_token: int
    served: Served


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Times:
    """Seconds on the monotonic clock; scheduled and first_token are None when the request never got there."""

    arrived: float
    scheduled: float | None
    first_token: float | None
    finished: float


@dataclass(frozen=True)
class TokensEvent:
    """New tokens, in order. index: of the first one in the output; text: the delta that is certain now.

    logprobs (natural log, of the raw logits; empty unless asked for), confidences (largest probability at the
    depth), breaches (confidence under the exit's threshold): one per token. depth: layers that produced them.
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    confidences: tuple[float, ...]
    breaches: tuple[bool, ...]
    depth: int


@dataclass(frozen=True)
class FinishedEvent:
    """The end of an answer. ordinal: of the request since boot, 0 for one that is not counted.

    text: the whole output (without the stop string); prompt_tokens, preemptions, breaches: counts;
    mean_confidence: of the output's tokens, in [0, 1]; mean_layers: layers per output token; matched_stop:
    the string that ended it.
    """

    request_id: str
    ordinal: int
    reason: FinishReason
    text: str
    output_ids: tuple[int, ...]
    matched_stop: str
    prompt_tokens: int
    preemptions: int
    spans: tuple[Span, ...]
    mean_confidence: float
    mean_layers: float
    breaches: int
    times: Times


@dataclass(frozen=True)
class FailedEvent:
    """The request ended without an answer, for the reason that the error gives.

    spans: of what was produced before.
    """

    request_id: str
    error: HeliosError
    spans: tuple[Span, ...] = ()


Event = TokensEvent | FinishedEvent | FailedEvent
OnEvent = Callable[[Event], None]
