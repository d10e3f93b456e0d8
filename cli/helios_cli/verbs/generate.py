"""`helios generate PROMPT`: sends a prompt to a deployment and streams the answer to the screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from helios_client import Answer, Client, HeliosError, Options, Unavailable
from helios_operator.errors import NotRunningError, OperatorError
from helios_operator.local.store import DEPLOYMENT

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
    address = options.address or _endpoint(options.name, options.state)
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    try:
        with way_in.client(address, options) as client:
            return _generate(client, prompt, _asked(options), options.timeout, options.json)
    except HeliosError as error:
        raise _failed(error, address, tls=options.tls_ca is not None) from None


def _asked(options: Any) -> Options:
    return {
        "model": options.model,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "seed": options.seed,
        "stop": options.stop,
        "depth": options.layers,
    }


def _generate(client: Client, prompt: str, asked: Options, timeout: float | None, as_json: bool) -> int:
    began = time.monotonic()
    with client.stream(prompt, timeout=timeout, **asked) as stream:
        for chunk in stream:
            if not as_json:
                print(chunk.text, end="", flush=True)
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps(_summary(stream.answer, seconds), indent=2, ensure_ascii=False))
    else:
        print()
        print(_footer(stream.answer, seconds), file=sys.stderr)
    return 0


def _summary(answer: Answer, seconds: float) -> dict[str, Any]:
    return {
        "text": answer.text,
        "finishReason": answer.finish_reason,
        "promptTokens": answer.prompt_tokens,
        "completionTokens": answer.completion_tokens,
        "model": answer.model,
        "meanLayers": answer.mean_layers,
        "totalLayers": answer.total_layers,
        "meanConfidence": answer.mean_confidence,
        "seconds": round(seconds, 3),
        "spans": json.loads(answer.metadata.get("helios-spans", "[]")),
    }


def _footer(answer: Answer, seconds: float) -> str:
    return (
        f"[{answer.completion_tokens} tokens in {seconds:.1f} s, "
        f"{answer.mean_layers:.0f} of {answer.total_layers} layers, "
        f"mean confidence {answer.mean_confidence:.2f}, {answer.finish_reason}]"
    )


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


def _failed(error: HeliosError, address: str, tls: bool) -> OperatorError:
    """As the client says it; of nobody there, with what this command can change: clear text to a port that
    speaks TLS, or the reverse, looks like it."""
    fix = error.fix
    if isinstance(error, Unavailable) and error.field == address:
        fix = "check that a deployment serves there, "
        fix += "and uses TLS, with a certificate of --tls-ca" if tls else "and give --tls-ca if it uses TLS"
    return OperatorError(error.field, error.problem, fix)
