"""What the model writes at a layer budget, beside full depth: free-running, greedy, on held-out prompts,
unedited.

`python -m bench.outputs`: continuations of --prompts prose and as many code prompts at each --layers
and at full depth, for people to read (docs/quality.md quotes from one). The claims count how far an
output equals full depth's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

from helios_contract.limits import Audit, Limits
from helios_contract.serves import Bundle
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import Event, FailedEvent, FinishedEvent, GenerationRequest
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.data import prompts
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer

from bench.report import Claim, arguments, publish


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--prompts", type=int, default=10, help="of each domain")
    parser.add_argument("--layers", type=int, nargs="+", default=[24, 27])
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    model = ensure_smollm2()
    bundle = Bundle("smollm2", "builtin://general", "")
    limits = Limits(
        generation=1,
        candidate="smollm2",
        model_uri=f"file://{model}",
        exits_uri=bundle.uri,
        exit_layers=(24, 27),
        max_queue_size=1000,
        audit=Audit(bundles=(bundle,)),
    )
    engine, tokenizer = Engine.start(EngineConfig(), limits), Tokenizer.open(model)
    texts = [
        (domain, text) for domain in ("prose", "code") for text in prompts(domain, options.prompts, seed=7)
    ]
    depths = (*options.layers, 30)
    asked = {
        f"{number}-{depth}": GenerationRequest(
            f"{number}-{depth}",
            tuple(tokenizer.encode(text)),
            SamplingParams(max_tokens=options.tokens),
            depth=depth,
        )
        for number, (_, text) in enumerate(texts)
        for depth in depths
    }
    answers = _generate(engine, asked.values())
    written: list[dict[str, Any]] = []
    for number, (domain, text) in enumerate(texts):
        outputs = {depth: answers[f"{number}-{depth}"] for depth in depths}
        written.append(
            {
                "domain": domain,
                "prompt": text,
                "outputs": {str(depth): output.text for depth, output in outputs.items()},
                "equalTokens": {str(d): _common(o, outputs[30]) for d, o in outputs.items() if d != 30},
            }
        )
    engine.stop()
    claims = [_claim(written, domain, depth) for domain in ("prose", "code") for depth in options.layers]
    publish(options.output, {"outputs": written}, claims)


def _generate(engine: Engine, asked: Iterable[GenerationRequest]) -> dict[str, FinishedEvent]:
    """Answers by request id; they share batches, which changes no token."""
    events: SimpleQueue[Event] = SimpleQueue()
    waiting = [engine.submit(request, events.put) for request in asked]
    answers: dict[str, FinishedEvent] = {}
    while len(answers) < len(waiting):
        event = events.get()
        if isinstance(event, FailedEvent):
            raise event.error
        if isinstance(event, FinishedEvent):
            answers[event.request_id] = event
    return answers


def _common(one: FinishedEvent, other: FinishedEvent) -> int:
    """Tokens before the two outputs first differ."""
    pairs = zip(one.output_ids, other.output_ids, strict=False)
    return next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(one.output_ids), len(other.output_ids))
    )


def _claim(written: list[dict[str, Any]], domain: str, depth: int) -> Claim:
    counts = [one["equalTokens"][str(depth)] for one in written if one["domain"] == domain]
    name = f"first-divergence-{domain}-{depth}-layers"
    return Claim(name, statistics.median(counts), min(counts), max(counts), "tokens")


if __name__ == "__main__":
    main()
