"""What comes back, as plain values.

Made by both clients of the messages that arrive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from helios_proto.v1 import generation_pb2 as pb

_AUTO = "auto"


@dataclass(frozen=True)
class Chunk:
    """A part of an answer, as it comes: a token or a few, and their text."""

    text: str
    """Empty while a token's text waits for the next one's: part of a character, perhaps of a stop string."""
    token_ids: tuple[int, ...]
    confidences: tuple[float, ...]
    """Of each token: how likely the model held it to be, at its depth; 0 to 1."""
    breaches: tuple[bool, ...]
    """Of each token: whether that is under the exit's threshold."""
    logprobs: tuple[float, ...]
    """Of each token, where they were asked for."""
    index: int
    """Of the first token, from 0."""
    depth: int
    """Layers that made these tokens."""

    @classmethod
    def of(cls, said: pb.Chunk) -> Chunk:
        return cls(
            said.text,
            tuple(said.token_ids),
            tuple(said.confidences),
            tuple(said.breaches),
            tuple(said.logprobs),
            said.index,
            said.depth,
        )


@dataclass(frozen=True)
class Span:
    """What made the tokens from `from_token` on, until the next span."""

    from_token: int
    candidate: str
    model_uri: str
    revision: str
    """Of the model."""
    backbone: str
    """Its fingerprint."""
    exits: str
    """Digest of the exit heads; empty: none."""
    depth: int
    weight_dtype: str = _AUTO
    """auto: as published."""
    kv_cache_dtype: str = _AUTO


@dataclass(frozen=True)
class Answer:
    """The whole of it."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    """stop, length, or abort for one that was ended by its id."""
    matched_stop: str
    """The stop string that ended it; empty: none."""
    prompt_tokens: int
    completion_tokens: int
    preemptions: int
    """How often it began again, for want of memory."""
    mean_layers: float
    """Per token."""
    layer_budget: int
    """What the server holds."""
    total_layers: int
    """What the model has."""
    mean_confidence: float
    breaches: int
    model: str
    model_revision: str
    weight_dtype: str
    kv_cache_dtype: str
    spans: tuple[Span, ...]
    """Empty where there are too many to be told; then `metadata` has `helios-spans-omitted`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """`helios-*`, as the server sent them."""

    @classmethod
    def of(cls, said: pb.Complete, trailing: Mapping[str, Any]) -> Answer:
        told = {key: value for key, value in trailing.items() if key.startswith("helios-")}
        usage, stats = said.usage, said.exit_stats
        return cls(
            text=said.text,
            token_ids=tuple(said.output_ids),
            finish_reason=pb.FinishReason.Name(said.finish_reason).removeprefix("FINISH_REASON_").lower(),
            matched_stop=said.matched_stop,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            preemptions=usage.preemptions,
            mean_layers=stats.mean_layers,
            layer_budget=stats.layer_budget,
            total_layers=stats.total_layers,
            mean_confidence=stats.mean_confidence,
            breaches=stats.breaches,
            model=said.model,
            model_revision=said.model_revision,
            weight_dtype=said.weight_dtype,
            kv_cache_dtype=said.kv_cache_dtype,
            spans=tuple(_span(each) for each in json.loads(told.get("helios-spans", "[]"))),
            metadata=told,
        )


def _span(said: Mapping[str, Any]) -> Span:
    """What a newer server says besides is left to `metadata`."""
    return Span(
        from_token=said["fromToken"],
        candidate=said["candidate"],
        model_uri=said["modelUri"],
        revision=said["revision"],
        backbone=said["backbone"],
        exits=said["exits"],
        depth=said["depth"],
        weight_dtype=said.get("weightDtype", _AUTO),
        kv_cache_dtype=said.get("kvCacheDtype", _AUTO),
    )


@dataclass(frozen=True)
class ModelInfo:
    """What serves, field by field as GetModelInfo says it."""

    model: str
    candidate: str
    model_uri: str
    model_revision: str
    backbone_fingerprint: str
    exits_uri: str
    exits_digest: str
    layer_budget: int
    total_layers: int
    exit_layers: tuple[int, ...]
    """The depths that a request may ask for, up to the budget."""
    max_context_tokens: int
    vocabulary_size: int
    dtype: str
    server_version: str
    weight_dtype: str
    kv_cache_dtype: str
    max_request_tokens: int
    """Of prompt and output, at most; 0: an older server, which does not say."""

    @classmethod
    def of(cls, said: pb.GetModelInfoResponse) -> ModelInfo:
        fields = {name: getattr(said, name) for name in cls.__dataclass_fields__}
        return cls(**fields | {"exit_layers": tuple(said.exit_layers)})
