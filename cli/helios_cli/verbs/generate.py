"""`helios generate PROMPT`: sends a prompt to a deployment and streams the answer to the screen."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from helios_operator.errors import NotRunningError, OperatorError
from helios_operator.local.store import DEPLOYMENT
from helios_proto import addresses
from helios_proto.client import Answer, GenerationClient
from helios_proto.v1.generation_pb2 import Complete, ExitPolicy, FinishReason, GenerateRequest, SamplingParams

from helios_cli import state, way_in
from helios_cli.arguments import Parser


def run(argv: Sequence[str]) -> int:
    parser = Parser("generate", "Send a prompt, stream the answer.").with_state()
    parser.add_argument("prompt", metavar="PROMPT", help="the text; - reads it from standard input")
    parser.add_argument("--name", help="the HeliosDeployment to ask (default: the only one that runs)")
    parser.add_argument("--address", metavar="HOST:PORT", help="instead of a name")
    parser.add_argument("--model", default="", help="name to send (default: whatever is served there)")
    parser.add_argument("--max-tokens", type=int, metavar="N")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--top-p", type=float, metavar="P")
    parser.add_argument("--top-k", type=int, metavar="K")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="may be given more than once"
    )
    parser.add_argument(
        "--layers", type=int, default=0, metavar="N", help="depth for this request (default: the budget)"
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of a stream")
    way_in.add_arguments(parser)
    options = parser.parse_args(argv)
    address = _given(options.address) if options.address else _endpoint(options.name, options.state)
    client = way_in.client(address, options)
    try:
        return asyncio.run(_generate(client, _request(options), options.timeout, options.json))
    except grpc.aio.AioRpcError as error:
        raise _failed(address, error, tls=options.tls_ca is not None) from None


def _given(address: str) -> str:
    try:
        return addresses.check(address)
    except ValueError as error:
        problem, _, fix = str(error).partition("; ")
        raise OperatorError("address", problem, fix) from None


def _request(options: Any) -> GenerateRequest:
    chosen = {
        name: getattr(options, name)
        for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")
        if getattr(options, name) is not None
    }
    try:
        return GenerateRequest(
            model=options.model,
            text=sys.stdin.read() if options.prompt == "-" else options.prompt,
            sampling_params=SamplingParams(stop=options.stop, **chosen),
            exit_policy=ExitPolicy(layer_budget=options.layers),
        )
    except ValueError as error:  # a number that the message cannot carry, such as a negative length
        raise OperatorError("arguments", str(error), "see `helios generate --help`") from None


async def _generate(
    connect: Callable[[], GenerationClient],
    request: GenerateRequest,
    timeout: float | None,
    as_json: bool,
) -> int:
    began = time.monotonic()
    async with connect() as client:
        answer = client.generate(request, timeout)
        complete = await _read(answer, streaming=not as_json)
        seconds = time.monotonic() - began
        if as_json:
            print(json.dumps(_summary(complete, seconds, await answer.spans()), indent=2, ensure_ascii=False))
        else:
            print()
            print(_footer(complete, seconds), file=sys.stderr)
    return 0


async def _read(answer: Answer, streaming: bool) -> Complete:
    last = Complete()
    async for message in answer:
        if message.HasField("complete"):
            last = message.complete
        elif streaming:
            print(message.chunk.text, end="", flush=True)
    return last


def _summary(complete: Complete, seconds: float, spans: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "text": complete.text,
        "finishReason": _reason(complete),
        "promptTokens": complete.usage.prompt_tokens,
        "completionTokens": complete.usage.completion_tokens,
        "model": complete.model,
        "meanLayers": complete.exit_stats.mean_layers,
        "totalLayers": complete.exit_stats.total_layers,
        "meanConfidence": complete.exit_stats.mean_confidence,
        "seconds": round(seconds, 3),
        "spans": spans,
    }


def _footer(complete: Complete, seconds: float) -> str:
    tokens, stats = complete.usage.completion_tokens, complete.exit_stats
    return (
        f"[{tokens} tokens in {seconds:.1f} s, {stats.mean_layers:.0f} of {stats.total_layers} layers, "
        f"mean confidence {stats.mean_confidence:.2f}, {_reason(complete)}]"
    )


def _reason(complete: Complete) -> str:
    return FinishReason.Name(complete.finish_reason).removeprefix("FINISH_REASON_").lower()


def _endpoint(name: str | None, folder: Any) -> str:
    if name is not None:
        found = [state.holding(name, folder)]
    else:
        found = [s for s in state.every(folder) if s.running]
    objects = [o for s in found if s.running for o in s.store.objects(DEPLOYMENT)]
    addresses = [
        o["status"]["endpoint"]
        for o in objects
        if o.get("status", {}).get("endpoint") and name in (None, o["metadata"]["name"])
    ]
    if len(addresses) == 1:
        return str(addresses[0])
    problem = "several deployments run here" if addresses else "no deployment runs here"
    fix = "give --name or --address" if addresses else "start one with `helios up FILE`, or give --address"
    raise NotRunningError("name", problem, fix)


def _failed(address: str, error: grpc.aio.AioRpcError, tls: bool) -> OperatorError:
    """The server's own words name field and fix; a connection that fails is put into words here: clear text
    to a port that speaks TLS, or the reverse, looks like nobody there."""
    details = error.details() or ""
    field, colon, rest = details.partition(": ")
    problem, semicolon, fix = rest.partition("; ")
    if colon and semicolon:
        return OperatorError(field, problem, fix)
    fix = "check that a deployment serves there, "
    fix += "and speaks TLS, by a certificate of --tls-ca" if tls else "and give --tls-ca if it speaks TLS"
    return OperatorError(address, f"{error.code().name} {details}".strip(), fix)
