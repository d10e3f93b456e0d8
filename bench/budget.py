"""Memory -> batch -> throughput: at one memory limit, what full depth reaches and what the layer budget
reaches.

`python -m bench.budget`: SmolLM2-135M with bundle `general`, under the limit at which full depth holds
--rows rows; one saturating load; --pairs pairs of runs, full depth and budget in turn, each in a process of
its own as a server is, so that the machine's drift cancels. Claims are medians of the pairs; low and high
are their least and greatest.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import helios_server.serve  # noqa: F401  (what a serving process imports: it counts against the limit)
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import AuditLimits, BundleSpec, EngineConfig, EngineLimits
from helios_server.exits.data import prompts
from helios_server.models.cache import cache_root
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer

from bench.load import Load, saturate
from bench.report import arguments, claim, publish

_EXITS = "builtin://general"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=4, help="that full depth holds")
    parser.add_argument("--budget", type=int, default=24, help="layers to compare with")
    parser.add_argument("--isl", type=int, default=96)
    parser.add_argument("--osl", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    model = ensure_smollm2()
    uri, tokens = f"file://{model}", options.isl + options.osl
    limit = _limit_mib(uri, options.rows, tokens)
    tokenizer = Tokenizer.open(model)
    texts = [tuple(tokenizer.encode(text))[: options.isl] for text in prompts("prose", 200)]
    pairs: list[dict[str, Any]] = []
    for number in range(options.pairs):
        order = (30, options.budget) if number % 2 == 0 else (options.budget, 30)
        runs = {depth: _alone(_run, _limits(uri, depth, limit, tokens), texts, options) for depth in order}
        pairs.append({str(depth): vars(runs[depth]) for depth in order})
        print(f"pair {number + 1}: {json.dumps(pairs[-1])}", file=sys.stderr)
    full, shallow = ([pair[str(depth)] for pair in pairs] for depth in (30, options.budget))
    claims = [
        claim("rows-full-depth", [run["rows"] for run in full], "rows"),
        claim("rows-budget", [run["rows"] for run in shallow], "rows"),
        claim("tokens-per-second-full-depth", [run["tokens_per_second"] for run in full], "tokens/s"),
        claim("tokens-per-second-budget", [run["tokens_per_second"] for run in shallow], "tokens/s"),
        claim("rows-ratio", [b["rows"] / a["rows"] for a, b in zip(full, shallow, strict=True)], "x"),
        claim(
            "throughput-ratio",
            [b["tokens_per_second"] / a["tokens_per_second"] for a, b in zip(full, shallow, strict=True)],
            "x",
        ),
    ]
    isl = round(statistics.mean(len(ids) for ids in texts))
    figures = {"memoryMiB": limit, "budgetLayers": options.budget, "meanPromptTokens": isl, "pairs": pairs}
    publish(options.output, figures, claims)


def _alone(run: Callable[..., Load], *arguments: Any) -> Load:
    """In a process that ends with it: what an engine leaves behind would count as held at the next start."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def _run(limits: EngineLimits, texts: list[tuple[int, ...]], options: Any) -> Load:
    host_memory.share_one_heap()
    engine = Engine.start(EngineConfig(volumes=cache_root()), limits)
    try:
        return saturate(
            engine, texts, osl=options.osl, in_flight=2 * engine.load().max_batch_size, warm_up=10,
            seconds=options.seconds,
        )  # fmt: skip
    finally:
        engine.stop()


def _limits(uri: str, depth: int, memory_mib: int, tokens: int) -> EngineLimits:
    exits = _EXITS if depth < 30 else ""
    return EngineLimits(
        generation=1,
        candidate="smollm2",
        model_uri=uri,
        exits_uri=exits,
        layer_budget=depth,
        memory_mib=memory_mib,
        max_queue_size=1000,
        exit_layers=(24, 27),
        audit=AuditLimits(percent=0, bundles=(BundleSpec("smollm2", _EXITS, ""),)),
        tokens_per_request=tokens,
    )


def _limit_mib(uri: str, rows: int, tokens: int) -> int:
    command = [sys.executable, "-m", "examples.demo.memory", uri, f"--exits={_EXITS}"]
    command += ["--rows", str(rows), "--tokens", str(tokens)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
