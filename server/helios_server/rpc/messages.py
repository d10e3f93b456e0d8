"""helios.v1.Generation's messages as what the engine takes, and the engine's events as messages.

Called by `rpc.generation`. Every field of a request either reaches the engine or refuses the call by its
name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from helios_contract.serves import AUTO, WHOLE_SEQUENCES
from helios_proto import __version__
from helios_proto.v1 import generation_pb2 as pb

from helios_server.engine.request import FinishedEvent, FinishReason, Served, Span, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.telemetry import Load, ModelInfo
from helios_server.errors import InvalidRequest
from helios_server.models.chat_text import ROLES
from helios_server.models.json_file import shown

Metadata = tuple[tuple[str, str], ...]

CHAT = "chat.messages"
"""What a chat is named by that the model's template refuses."""
_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.ABORT: pb.FINISH_REASON_ABORT,
}
_SPANS_BYTES = 4096
"""Of JSON: gRPC allows 8 KiB of metadata in all, and whoever gets more loses the whole answer."""
_DEPTHS_BYTES = 2048
"""The same of depths, beside the spans."""


# -- in


def sampling_from_proto(message: pb.SamplingParams) -> SamplingParams:
    """Unset means the engine's default. InvalidRequest names `sampling_params.FIELD`."""
    scalars = {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if field.has_presence and message.HasField(field.name)
    }
    return SamplingParams(**scalars, stop=tuple(message.stop), stop_token_ids=tuple(message.stop_token_ids))


def input_ids(message: pb.GenerateRequest) -> tuple[int, ...] | None:
    """The token ids that were given; None when it is a text. InvalidRequest when it is neither, or empty."""
    match message.WhichOneof("input"):
        case "text":
            if not message.text:
                raise InvalidRequest("text", "is empty", "Give the text to continue")
            return None
        case "tokenized":
            if not message.tokenized.input_ids:
                raise InvalidRequest("tokenized.input_ids", "is empty", "Give at least one token id")
            return tuple(message.tokenized.input_ids)
        case _:
            raise InvalidRequest("input", "neither text, tokenized nor chat is given", "Give one of them")


def chat(message: pb.ChatInput) -> list[dict[str, str]]:
    """Messages as templates know them. InvalidRequest names `chat.messages`, or the field of one."""
    if not message.messages:
        raise InvalidRequest(CHAT, "is empty", "Give at least one message")
    return [_message(each, f"{CHAT}[{index}]") for index, each in enumerate(message.messages)]


def _message(given: pb.ChatMessage, field: str) -> dict[str, str]:
    if given.role not in ROLES:
        problem = f"{shown(given.role)} is no role here" if given.role else "is missing"
        raise InvalidRequest(f"{field}.role", problem, f"Use one of {', '.join(ROLES)}")
    name = {"name": given.name} if given.name else {}
    return {"role": ROLES[given.role], "content": given.content, **name}


# -- out


def chunk(event: TokensEvent) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        chunk=pb.Chunk(
            text=event.text,
            token_ids=event.token_ids,
            logprobs=event.logprobs,
            confidences=event.confidences,
            breaches=event.breaches,
            index=event.index,
            depth=event.depth,
        )
    )


def complete(event: FinishedEvent, model_name: str, info: ModelInfo) -> pb.GenerateResponse:
    """`info`: of what serves now, by which the budget is told; revision and precision are the last span's."""
    last = event.spans[-1].served if event.spans else None
    told = last or info
    return pb.GenerateResponse(
        complete=pb.Complete(
            text=event.text,
            output_ids=event.output_ids,
            finish_reason=_REASONS[event.reason],
            matched_stop=event.matched_stop,
            usage=pb.Usage(
                prompt_tokens=event.prompt_tokens,
                completion_tokens=len(event.output_ids),
                preemptions=event.preemptions,
            ),
            exit_stats=pb.ExitStats(
                mean_layers=event.mean_layers,
                layer_budget=info.layer_budget,
                total_layers=info.total_layers,
                mean_confidence=event.mean_confidence,
                breaches=event.breaches,
            ),
            model=model_name,
            model_revision=last.revision if last else info.model_revision,
            weight_dtype=told.weight_dtype,
            kv_cache_dtype=told.kv_cache_dtype,
        )
    )


def trailing(model_name: str, info: ModelInfo, spans: Sequence[Span]) -> Metadata:
    """The trailing metadata of an answer, or of an error: what serves, and what produced the output so
    far."""
    last = spans[-1].served if spans else None
    precision = last or info
    metadata = [
        ("helios-model", _ascii(model_name)),
        ("helios-candidate", _ascii(last.candidate if last else info.candidate)),
        ("helios-revision", _ascii(last.revision if last else info.model_revision)),
        ("helios-layer-budget", str(info.layer_budget)),
        ("helios-weight-dtype", precision.weight_dtype),
        ("helios-kv-cache-dtype", precision.kv_cache_dtype),
    ]
    if last:
        metadata.append(("helios-depth", str(last.depth)))
        metadata.append(_spans_entry(spans))
    if last and last.exit_mode != WHOLE_SEQUENCES:
        metadata.append(_depths_entry(spans))
    return tuple(metadata)


def _spans_entry(spans: Sequence[Span]) -> tuple[str, str]:
    text = json.dumps([_span(span) for span in spans], separators=(",", ":"))
    if len(text) > _SPANS_BYTES:
        return ("helios-spans-omitted", str(len(spans)))
    return ("helios-spans", text)


def _depths_entry(spans: Sequence[Span]) -> tuple[str, str]:
    """Where the depth changes, FROM_TOKEN:DEPTH: short enough for what spans are too long for."""
    text = ",".join(f"{span.from_token}:{span.served.depth}" for span in spans)
    if len(text) > _DEPTHS_BYTES:
        return ("helios-depths-omitted", str(len(spans)))
    return ("helios-depths", text)


def _span(span: Span) -> dict[str, object]:
    """A precision is named where it is not auto, an exit mode where it is not `sequence`, so that what serves
    as published has short spans."""
    served = span.served
    precision = {"weightDtype": served.weight_dtype, "kvCacheDtype": served.kv_cache_dtype}
    mode = {} if served.exit_mode == WHOLE_SEQUENCES else {"exitMode": served.exit_mode}
    return {
        "fromToken": span.from_token,
        "candidate": served.candidate,
        "modelUri": served.model_uri,
        "revision": served.revision,
        "backbone": served.backbone,
        "exits": served.exits_digest,
        "depth": served.depth,
        **{name: word for name, word in precision.items() if word != AUTO},
        **mode,
    }


def read_spans(entries: Sequence[Mapping[str, Any]]) -> tuple[Span, ...]:
    """The spans that `helios-spans` tells, for whoever follows an answer offline."""
    return tuple(
        Span(
            entry["fromToken"],
            Served(
                candidate=entry["candidate"],
                model_uri=entry["modelUri"],
                revision=entry["revision"],
                backbone=entry["backbone"],
                exits_digest=entry["exits"],
                depth=entry["depth"],
                weight_dtype=entry.get("weightDtype", AUTO),
                kv_cache_dtype=entry.get("kvCacheDtype", AUTO),
                exit_mode=entry.get("exitMode", WHOLE_SEQUENCES),
            ),
        )
        for entry in entries
    )


def _ascii(text: str) -> str:
    """Metadata is ASCII; a name that is not keeps its meaning as escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def model_info(info: ModelInfo, model_name: str) -> pb.GetModelInfoResponse:
    return pb.GetModelInfoResponse(
        model=model_name,
        candidate=info.candidate,
        model_uri=info.model_uri,
        model_revision=info.model_revision,
        backbone_fingerprint=info.backbone_fingerprint,
        exits_uri=info.exits_uri,
        exits_digest=info.exits_digest,
        layer_budget=info.layer_budget,
        total_layers=info.total_layers,
        exit_layers=info.exit_layers,
        max_context_tokens=info.max_context_tokens,
        vocabulary_size=info.vocabulary_size,
        dtype=info.dtype,
        server_version=__version__,
        weight_dtype=info.weight_dtype,
        kv_cache_dtype=info.kv_cache_dtype,
        max_request_tokens=info.max_request_tokens,
    )


def load(state: Load, draining: bool) -> pb.GetLoadResponse:
    return pb.GetLoadResponse(
        running=state.running,
        waiting=state.waiting,
        max_batch_size=state.max_batch_size,
        max_queue_size=state.max_queue_size,
        kv_capacity_tokens=state.kv_capacity_tokens,
        kv_used_tokens=state.kv_used_tokens,
        draining=draining,
    )
