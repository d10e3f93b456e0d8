"""The control loop against what stays as it is: one trace of shifting traffic, replayed by every arm.

`helios bench loop`, or `python -m bench.loop`: SmolLM2-135M with bundle `general`; --requests requests of
prose, of code and of both, each in a calm (--load of what full depth as published can do) and a burst;
Poisson arrivals, one seed. Arms, one after another in the same run: every depth, as published and in int8,
of which the best is chosen in hindsight; single-model token exit (docs/decisions/0190-token-exit.md) at the
least threshold that keeps --min-quality; transformers; HELIOS's loop for each of --objectives, with a choice
of precision and without (`-as-published`), on profiles that were measured before the trace begins: of given
prompts, and where the traffic is steady of prompts that came, as of a deployment that has stood in it.
--memory-rows or --memory-mib: the memory in which weights crowd the batch (transformers is not held to it).
--turns: each loop beside each static arm in turns, slice by slice of each kind (see `turns`).

Claims, of each arm: tokens a second in the bursts, waits in milliseconds from the moment when a request came,
requests beyond --slo-ttft or --slo-itl, quality of all requests by the depth and precision that their spans
name, rows at once, joules a token. low and high are the least and greatest of the kinds of text, for quality
its 95 % interval. Then ratios, above 1 where the loop did better, and what each step between token exit and
the loop is worth (`part-`). Without RAPL joules are declared watts times CPU-seconds: an estimate, of which
nothing is claimed.
"""

from __future__ import annotations

import asyncio
import fnmatch
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from helios_contract.serves import AUTO, REFERENCE, Precision
from helios_operator.api.types import Objective
from helios_server.exits.data import prompts
from helios_server.models.cache import cache_root
from helios_server.models.linear import default_dtype

from bench.engine import quiet
from bench.engine.texts import DOMAINS
from bench.frontier.subject import Subject, depths, subject_of
from bench.load import alone
from bench.loop.arms import PEER, TOKENS, Arms, loop_name
from bench.loop.looping import Asked
from bench.loop.pods import NEVER, Fixed
from bench.loop.quality import measured
from bench.loop.result import Result
from bench.loop.run import PARTS, Bench, say
from bench.loop.trace import KINDS, MIXED, Texts, together
from bench.report import arguments, publish

_INT8 = Precision("int8", AUTO)
_GIVEN = 48
"""Prompts on which the loop chooses before the trace; so many requests come before it, too."""
_WORDS = {"code": (40, 65)}
"""Of a text, where the domain's own are too short to tell depths apart."""
_REQUESTS, _IN_A_SLICE = 1087, 150
_SHORT: dict[str, Any] = {
    "requests": 60,
    "kinds": ["prose", "code"],
    "objectives": ["throughput"],
    "texts": 24,
    "callers": 16,
    "every_requests": 20,
    "part_requests": 12,
    "minutes": 4.0,
}


def main() -> None:
    options = _options()
    seen = quiet.insist(2, options.busy)
    subject = subject_of(
        options.model, options.depths, (REFERENCE, _INT8), options.isl, options.osl, default_dtype("cpu")
    )
    _check_only(subject, options)
    texts = _texts(options)
    say("every text is scored at every depth and precision")
    worth = alone(measured, subject, texts, options.exit_threshold, options.min_quality)
    fixed = Fixed(subject, _memory_mib(subject, options), worth.threshold, default_dtype("cpu"))
    with tempfile.TemporaryDirectory(prefix="helios-loop-") as state:
        arms = _arms(fixed, texts, Path(state), options)
        shape, found = asyncio.run(Bench(arms, texts, options).run())
    result = Result(arms, shape, found, worth, options)
    looks = {"quietBefore": seen, "quietAfter": quiet.look(2)}
    publish(options.output, result.figures() | looks, list(result.claims()))


# -- what is asked -------------------------------------------------------------------------------------------


def _texts(options: Namespace) -> Texts:
    """Of each domain that a kind draws from."""
    domains = [domain for domain in DOMAINS if {domain, MIXED} & set(options.kinds)]
    return {domain: _read(domain, options.texts, options.seed) for domain in domains}


def _read(domain: str, count: int, seed: int) -> list[str]:
    return prompts(DOMAINS[domain], count, words=_WORDS.get(domain), seed=seed)


def _memory_mib(subject: Subject, options: Namespace) -> int:
    """Of a pod; 0: nothing crowds it."""
    if not options.memory_rows:
        return int(options.memory_mib)
    command = [sys.executable, "-m", "examples.demo.memory", subject.uri, "--volumes", str(cache_root())]
    command += ["--rows", str(options.memory_rows), "--tokens", str(subject.tokens)]
    command += [f"--exits={subject.exits}"] if subject.exits else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _arms(fixed: Fixed, texts: Texts, state: Path, options: Namespace) -> Arms:
    first = options.kinds[0] if options.kinds[0] != MIXED else next(iter(texts))
    given = _read(first, _GIVEN, options.seed + 1)
    asked = Asked(
        objective="",
        weights=(AUTO, _INT8.weight_dtype),
        memory_mib=fixed.memory_mib,
        min_quality_percent=options.min_quality,
        prompts=given,
        callers=options.callers,
        audit_percent=options.audit_percent,
        every_requests=options.every_requests,
    )
    settling = together({first: _read(first, _GIVEN, options.seed + 2)}, _GIVEN)
    return Arms(fixed, asked, options.objectives, state, options.watts, options.callers, settling)


def _check_only(subject: Subject, options: Namespace) -> None:
    """Raises SystemExit: a name that no arm has."""
    fixed = Fixed(subject, 0, NEVER, "").names
    loops = [loop_name(each, as_published) for each in options.objectives for as_published in (False, True)]
    if options.turns and not any(fnmatch.filter(fixed, each) for each in options.only):
        raise SystemExit(f"--turns: --only names no static arm; there are {', '.join(fixed)}")
    names = [*fixed, TOKENS, *loops, PEER, PARTS]
    if unknown := [each for each in options.only if not fnmatch.filter(names, each)]:
        raise SystemExit(f"--only: no arm is named {', '.join(unknown)}; there are {', '.join(names)}")


def _options() -> Namespace:
    parser = arguments(__doc__)
    parser.set_defaults(began=time.monotonic())
    add = parser.add_argument
    objectives = [each.value for each in Objective]
    add("--model", help="file:///path with its own head (default: SmolLM2-135M with its general heads)")
    add("--depths", type=depths, help="below full, for --model (default: two thirds)")
    add("--objectives", nargs="+", choices=objectives, default=objectives, help="(default: all four)")
    add("--min-quality", type=int, default=93, help="percent that is promised (default: 93)")
    add("--minutes", type=float, default=45.0, help="no arm begins that might end later (default: 45)")
    add("--short", action="store_true", help="a small trace, one objective, few arms: under 5 minutes")
    add("--busy", action="store_true", help="measure though others use the machine")
    _add_trace(parser)
    _add_arms(parser)
    options = parser.parse_args()
    if options.short:
        vars(options).update(_SHORT)
    if options.requests is None:
        options.requests = _IN_A_SLICE if options.turns else _REQUESTS
    return options


def _add_trace(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the trace").add_argument
    add("--requests", type=int, help=f"(default: {_REQUESTS}, of a slice {_IN_A_SLICE})")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="one alone is steady traffic")
    add("--texts", type=int, default=160, help="different ones of a domain (default: 160)")
    add("--isl", type=int, default=112, help="tokens of a prompt, as specs say it (default: 112)")
    add("--osl", type=int, default=24, help="tokens of an answer (default: 24)")
    add("--load", type=float, default=0.7, help="of a calm, in what full depth can do (default: 0.7)")
    add("--rate", type=float, help="requests a second that full depth can do (default: it is measured)")
    add("--callers", type=int, default=48, help="requests under way at most (default: 48)")
    add("--seed", type=int, default=1, help="(default: 1)")


def _add_arms(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the arms").add_argument
    add("--only", nargs="+", default=["*"], metavar="ARM", help="by name or pattern; 'parts' too")
    add("--memory-mib", type=int, default=0, help="of a pod (default: the machine's)")
    add("--memory-rows", type=int, default=0, metavar="N", help="what N rows of full depth and audits need")
    add("--rounds", type=int, default=1, help="of all arms, every other one backwards (default: 1)")
    add(
        "--turns",
        type=int,
        default=0,
        metavar="N",
        help="slices of each kind that a loop and each static arm answer in turns",
    )
    add("--exit-threshold", type=float, metavar="P", help="(default: the least that keeps the quality)")
    add("--audit-percent", type=int, default=5, help="of the loop (default: 5, as in specs)")
    add("--every-requests", type=int, default=150, help="a reassessment at least (default: 150)")
    add("--watts", type=float, default=10.0, help="of a busy core, where none can be read (default: 10)")
    add("--slo-ttft", type=float, default=1.0, metavar="SECONDS", help="to the first token (default: 1)")
    add("--slo-itl", type=float, default=0.1, metavar="SECONDS", help="a token after it (default: 0.1)")
    add("--part-requests", type=int, default=48, help="in a burst of the parts (default: 48)")


if __name__ == "__main__":
    main()
