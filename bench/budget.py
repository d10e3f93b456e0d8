"""Memory -> batch -> throughput: at one memory limit, what full depth reaches and what the layer budget
reaches.

`python -m bench.budget`: SmolLM2-135M with bundle `general`, under the limit at which full depth holds
--rows rows; one saturating load; --pairs pairs of runs, full depth and budget in turn, each in a process of
its own as a server is, so that the machine's drift cancels. Claims are medians of the pairs; low and high
are their least and greatest.

--model takes another checkpoint (`bench.random_model` makes one), served with its own head and prompts of
random tokens; --device an accelerator.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import helios_server.serve  # noqa: F401  (what a serving process imports: it counts against the limit)
import torch
from helios_contract.limits import Audit, Limits
from helios_contract.serves import Bundle
from helios_server.engine import host_memory
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.exits.data import prompts
from helios_server.models.cache import cache_root
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2, resolve
from helios_server.models.tokenizer import Tokenizer

from bench.load import Load, alone, saturate
from bench.report import arguments, claim, publish

EXITS = "builtin://general"


@dataclass(frozen=True)
class Subject:
    """What is served. exits: bundle of its heads, "" for the model's own head at every depth."""

    uri: str
    exits: str

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.open(resolve(self.uri).path)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", help="file:///path (default: SmolLM2-135M)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=4, help="that full depth holds")
    parser.add_argument("--budget", type=int, default=24, help="layers to compare with")
    parser.add_argument("--isl", type=int, default=96)
    parser.add_argument("--osl", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=10, help="seconds before the measured ones")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    subject = Subject(options.model, "") if options.model else Subject(f"file://{ensure_smollm2()}", EXITS)
    deepest = subject.checkpoint.config.num_layers
    limit = limit_mib(subject, options)
    texts = _random_prompts(subject, options.isl) if options.model else prose(subject, options.isl)
    pairs: list[dict[str, Any]] = []
    for number in range(options.pairs):
        order = (deepest, options.budget) if number % 2 == 0 else (options.budget, deepest)
        runs = {
            depth: alone(serve, limits_at(subject, depth, limit, options), texts, options) for depth in order
        }
        pairs.append({str(depth): vars(runs[depth]) for depth in order})
        print(f"pair {number + 1}: {json.dumps(pairs[-1])}", file=sys.stderr)
    full, shallow = ([pair[str(depth)] for pair in pairs] for depth in (deepest, options.budget))
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
    figures = {
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "memoryMiB": limit,
        "layers": deepest,
        "budgetLayers": options.budget,
        "meanPromptTokens": isl,
        "pairs": pairs,
    }
    publish(options.output, figures, claims)


def serve(limits: Limits, texts: list[tuple[int, ...]], options: Any) -> Load:
    host_memory.share_one_heap()
    engine = Engine.start(EngineConfig(device=options.device, volumes=cache_root()), limits)
    in_flight = 2 * engine.load().max_batch_size
    try:
        return saturate(
            engine,
            texts,
            osl=options.osl,
            in_flight=in_flight,
            warm_up=options.warm_up,
            seconds=options.seconds,
        )
    finally:
        engine.stop()


def limits_at(subject: Subject, depth: int, memory_mib: int, options: Any) -> Limits:
    full = depth == subject.checkpoint.config.num_layers
    return Limits(
        generation=1,
        candidate="budget",
        model_uri=subject.uri,
        exits_uri="" if full else subject.exits,
        layer_budget=depth,
        memory_mib=memory_mib,
        max_queue_size=1000,
        exit_layers=(24, 27) if subject.exits else (options.budget,),
        audit=Audit(percent=0, bundles=(Bundle("budget", subject.exits, ""),)),
        tokens_per_request=options.isl + options.osl,
    )


def limit_mib(subject: Subject, options: Any) -> int:
    command = [
        sys.executable,
        "-m",
        "examples.demo.memory",
        subject.uri,
        "--device",
        options.device,
        "--unaudited",
    ]
    command += ["--rows", str(options.rows), "--tokens", str(options.isl + options.osl)]
    command += [f"--exits={subject.exits}"] if subject.exits else []
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def prose(subject: Subject, tokens: int) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.open(subject.checkpoint.path)
    return [tuple(tokenizer.encode(text))[:tokens] for text in prompts("prose", 200)]


def _random_prompts(subject: Subject, tokens: int) -> list[tuple[int, ...]]:
    source, vocabulary = random.Random(0), subject.checkpoint.config.vocab_size
    return [tuple(source.choices(range(vocabulary), k=tokens)) for _ in range(200)]


if __name__ == "__main__":
    main()
