"""What another precision in place costs: seconds until it serves, and how long streams stand still.

`python -m bench.requantize`: SmolLM2-135M with --streams streams under way, all of them answers of --osl
tokens; the limits go through each pair of precisions and back, --rounds times. Claims, medians of the rounds
with least and greatest: `seconds`, from the call to the step that published it; `pause`, the longest that a
stream waited for its next token meanwhile, with the prompts computed again; `lost`, streams that ended with
an error (0, or the bench fails).
"""

from __future__ import annotations

import itertools
import json
import queue
import random
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from helios_contract.limits import Audit, Limits
from helios_contract.serves import Precision
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import Event, FinishedEvent, GenerationRequest, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.models.store import ensure_smollm2

from bench.engine import quiet
from bench.report import Claim, arguments, claim, publish

WAYS = (
    Precision("int8"),
    Precision(),
    Precision("int8", "int8"),
    Precision(kv_cache_dtype="int8"),
    Precision(),
)
"""In this order; the first comes after the reference."""
Change = Mapping[str, float]
"""seconds, pause (seconds), reprefilled (streams)."""


class Streams:
    """So many at a time: one that ends is followed by the next."""

    def __init__(self, engine: Engine, options: Namespace) -> None:
        self._engine, self._options = engine, options
        self._vocabulary = engine.serving.vocabulary
        self._numbers = itertools.count()
        self._events: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
        self._dice = random.Random(0)
        self._told: dict[str, float] = {}
        for _ in range(options.streams):
            self._submit()

    def follow(self, until: float) -> float:
        """Takes tokens in until then. Returns the longest wait of one stream between two of its tokens."""
        longest = 0.0
        while (left := until - time.monotonic()) > 0:
            try:
                came, event = self._events.get(timeout=left)
            except queue.Empty:
                break
            longest = max(longest, self._take(came, event))
        return longest

    def drain(self) -> float:
        """What has come so far."""
        longest = 0.0
        while not self._events.empty():
            longest = max(longest, self._take(*self._events.get()))
        return longest

    def _take(self, came: float, event: Event) -> float:
        if isinstance(event, TokensEvent):
            waited = came - self._told.get(event.request_id, came)
            self._told[event.request_id] = came
            return waited
        if not isinstance(event, FinishedEvent):
            raise event.error
        self._told.pop(event.request_id, None)
        self._submit()
        return 0.0

    def _submit(self) -> None:
        options, name = self._options, f"stream-{next(self._numbers)}"
        vocabulary = self._vocabulary
        ids = tuple(self._dice.choices(range(vocabulary // 2, vocabulary), k=options.isl))
        sampling = SamplingParams(max_tokens=options.osl, ignore_eos=True)
        request = GenerationRequest(name, ids, sampling, cache_salt=name)
        self._engine.submit(request, lambda event: self._events.put((time.monotonic(), event)))


def measure(options: Namespace) -> dict[str, list[Change]]:
    """By "from -> to"."""
    limits = Limits(
        generation=1,
        candidate="bench",
        model_uri=options.model or f"file://{ensure_smollm2()}",
        max_batch_size=options.streams,
        max_queue_size=4 * options.streams,
        memory_mib=4096,
        tokens_per_request=options.isl + options.osl,
        audit=Audit(),
    )
    engine = Engine.start(EngineConfig(threads=options.threads), limits)
    found: dict[str, list[Change]] = {}
    try:
        streams = Streams(engine, options)
        streams.follow(time.monotonic() + options.between)
        for _, way in itertools.product(range(options.rounds), WAYS):
            step = f"{limits.precision} -> {way}"
            limits = replace(
                limits,
                generation=limits.generation + 1,
                weight_dtype=way.weight_dtype,
                kv_cache_dtype=way.kv_cache_dtype,
            )
            found.setdefault(step, []).append(_change(engine, streams, limits, options))
            print(f"{step}: {json.dumps(found[step][-1])}", file=sys.stderr)
    finally:
        engine.stop()
    return found


def _change(engine: Engine, streams: Streams, limits: Limits, options: Namespace) -> Change:
    streams.drain()
    outcome = engine.set_limits(limits).result()
    pause = streams.follow(time.monotonic() + options.between)
    return {"seconds": outcome.seconds, "pause": pause, "reprefilled": float(outcome.reprefilled)}


def claims_of(found: Mapping[str, Sequence[Change]]) -> Iterator[Claim]:
    for step, changes in found.items():
        name = step.replace(" -> ", "-to-").replace("/", "-")
        yield claim(f"seconds-{name}", [change["seconds"] for change in changes], "s")
        yield claim(f"pause-{name}", [change["pause"] for change in changes], "s")
        yield claim(f"reprefilled-{name}", [change["reprefilled"] for change in changes], "streams")
    yield claim("lost", [0.0], "streams")


def main() -> None:
    options = options_of()
    seen = quiet.insist(options.threads, options.busy)
    found = measure(options)
    figures: dict[str, Any] = {"changes": found, "streams": options.streams, "threads": options.threads}
    figures |= {"quietBefore": seen, "quietAfter": quiet.look(options.threads)}
    publish(options.output, figures, list(claims_of(found)), ("torch",))


def options_of(argv: Sequence[str] | None = None) -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add("--model", help="file:///path (default: SmolLM2-135M)")
    add("--streams", type=int, default=20, help="under way (default: 20)")
    add("--rounds", type=int, default=5, help="through all precisions (default: 5)")
    add("--isl", type=int, default=96, help="tokens of a prompt (default: 96)")
    add("--osl", type=int, default=160, help="tokens of an answer (default: 160)")
    add("--between", type=float, default=3.0, help="seconds between two changes (default: 3)")
    add("--threads", type=int, default=torch.get_num_threads(), help="(default: torch's own choice)")
    add("--busy", action="store_true", help="measure though others use the machine")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
