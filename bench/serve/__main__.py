"""What applications feel, through each API of a pod: latencies, tokens a second, goodput, and refusals.

`helios bench serve`, or `python -m bench.serve`. The load comes from this process and the pod is another: one
of the bench's own on SmolLM2 (--tiny: on a small model of random numbers), or what serves at the addresses
that are given. A closed loop keeps --concurrency calls under way for --seconds, an open one sends --rate
calls a second at moments that a Poisson process draws; each --rounds times for each door. Claims, of each
door and loop: percentiles of the time to the first token, between messages and to the end, tokens a second,
and goodput (requests a second that met --slo-ttft and --slo-itl), as medians of the rounds with their least
and greatest; and calls refused with a hint, refused without one, and failed, in all.

--crowd measures what the APIs can take and cost instead, on pods of its own: --streams streams at once (how
they ended, memory, lag of the event loop), --calls calls at one moment, and processor time a token of a pod
that has 32 streams over that of the engine alone, with SmolLM2 and with a tiny model (--tiny: with that
alone).
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from helios_server.models.store import ensure_smollm2

from bench.report import Claim, arguments, publish
from bench.serve import figures, tiny
from bench.serve.crowd import Crowd
from bench.serve.doors import DOORS, Access, Door
from bench.serve.engine_alone import WARM_UP
from bench.serve.load import Caller, told
from bench.serve.pod import Settings, running

_PACKAGES = ("torch", "grpcio", "aiohttp", "protobuf")


def main() -> None:
    options = _options()
    _allow_open_files()
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        found, claims = asyncio.run((_crowd if options.crowd else _loads)(options, Path(folder)))
    publish(options.output, found, claims, _PACKAGES)
    if options.plot:
        from bench.serve.plot import draw  # matplotlib: not needed for the figures

        draw(list(found["loads"]), claims, f"{found['subject']}, by door", options.plot)


def _options() -> Namespace:
    parser = arguments(__doc__)
    add = parser.add_argument
    add(
        "--doors",
        nargs="+",
        choices=list(DOORS),
        metavar="DOOR",
        help=f"of {', '.join(DOORS)} (default: all)",
    )
    add("--rounds", type=_whole, default=3, help="of everything that is repeated (default: 3)")
    add("--seconds", type=_positive, default=0.0, help="of a round (default: 10, with --crowd 5)")
    add("--threads", type=_whole, default=1, help="of the pod's engine (default: 1; the doors have another)")
    add("--short", action="store_true", help="one round of half a second, and a smaller crowd: does it run?")
    _add_addresses(parser)
    _add_loops(parser)
    _add_crowd(parser)
    options = parser.parse_args()
    _settle(options, parser)
    return options


def _add_addresses(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("what serves, in place of a pod of its own").add_argument
    for door in DOORS.values():
        add(f"--{door.NAME}", metavar="ADDRESS", help=door.HELP)
    add("--model", default="", help="as the doors know it (default: whatever is served)")
    add("--token-file", type=Path, metavar="FILE", help="bearer token of the caller")
    add("--tls-ca", type=Path, metavar="FILE", help="speak TLS, and trust this CA, in PEM")


def _add_loops(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the loops").add_argument
    add("--loops", nargs="+", choices=("closed", "open"), default=["closed", "open"], help="(default: both)")
    add("--concurrency", type=_whole, default=32, help="calls under way in a closed loop (default: 32)")
    add("--rate", type=_positive, default=4.0, help="calls a second in an open loop (default: 4)")
    add("--prompt", type=_whole, default=32, help="tokens of a prompt (default: 32)")
    add("--new", type=_whole, default=64, help="tokens of an answer (default: 64)")
    add("--slo-ttft", type=_positive, default=1.0, metavar="SECONDS", help="to the first token (default: 1)")
    add("--slo-itl", type=_positive, default=0.1, metavar="SECONDS", help="a token after it (default: 0.1)")
    add("--tiny", action="store_true", help="the pod of its own serves a small model of random numbers")
    add("--rows", type=_whole, default=32, help="of the pod of its own (default: 32)")
    add("--queue", type=_whole, default=256, help="requests that may wait there (default: 256)")
    add("--plot", type=Path, metavar="FILE", help="draw the latencies; needs matplotlib")


def _add_crowd(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the crowd, in place of the loops").add_argument
    add("--crowd", action="store_true", help="measure what the doors take and cost")
    add("--streams", type=_whole, default=512, help="at once (default: 512)")
    add("--calls", type=_whole, default=3000, help="at one moment (default: 3000)")


def _settle(options: Namespace, parser: ArgumentParser) -> None:
    """What follows from what was given."""
    options.addresses = {name: given for name in DOORS if (given := getattr(options, name))}
    if options.crowd and (options.addresses or options.plot):
        parser.error(
            "argument --crowd: starts pods of its own, and draws nothing; leave out addresses and --plot"
        )
    if options.addresses and (missing := set(options.doors or ()) - set(options.addresses)):
        parser.error(
            f"argument --doors: no address of {', '.join(sorted(missing))} is given; give --{min(missing)}"
        )
    options.doors = options.doors or list(options.addresses or DOORS)
    if options.short:
        options.rounds, options.seconds, options.streams, options.calls = 1, 0.5, 64, 300
    options.seconds = options.seconds or (5.0 if options.crowd else 10.0)
    options.warm_up = min(WARM_UP, options.seconds)
    options.token = _content("--token-file", options.token_file, parser).decode().strip()
    _content("--tls-ca", options.tls_ca, parser)


def _content(argument: str, file: Path | None, parser: ArgumentParser) -> bytes:
    try:
        return file.read_bytes() if file else b""
    except OSError as error:
        parser.error(f"argument {argument}: {file} cannot be read ({error.strerror}); give another file")


def _whole(word: str) -> int:
    if (number := int(word)) < 1:
        raise ValueError
    return number


def _positive(word: str) -> float:
    if not 0 < (number := float(word)) < float("inf"):
        raise ValueError
    return number


_whole.__name__, _positive.__name__ = "whole number above 0", "number above 0"  # as argparse says them


def _allow_open_files() -> None:
    """A connection takes one here, and a shell's own limit may be 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _crowd(options: Namespace, folder: Path) -> tuple[dict[str, Any], list[Claim]]:
    models = {} if options.tiny else {"smollm2": ensure_smollm2(progress=_say)}
    crowd = Crowd(models | {"tiny": tiny.write(folder / "tiny")}, options, _say)
    claims = await crowd.run()
    settings = ("streams", "calls", "seconds", "rounds", "threads")
    return {name: getattr(options, name) for name in settings} | crowd.figures, claims


async def _loads(options: Namespace, folder: Path) -> tuple[dict[str, Any], list[Claim]]:
    slo = figures.Slo(options.slo_ttft, options.slo_itl)
    loads: dict[str, Any] = {}
    claims: list[Claim] = []
    async with _addresses(options, folder) as (subject, addresses):
        for loop in options.loops:
            for name in options.doors:
                rounds, said = await _rounds(loop, name, addresses[name], options, slo)
                loads[f"{loop}-{name}"] = {"rounds": rounds, "said": said}
                claims += figures.claims(f"{loop}-{name}", rounds)
    settings = ("concurrency", "rate", "prompt", "new", "seconds", "slo_ttft", "slo_itl", "threads")
    found = {name: getattr(options, name) for name in settings}
    return {"subject": subject, **found, "loads": loads}, claims


async def _rounds(
    loop: str, name: str, address: str, options: Namespace, slo: figures.Slo
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Each round's figures, and what was said by calls that failed."""
    rounds: list[dict[str, float]] = []
    said: dict[str, Any] = {}
    async with DOORS[name](address, options.model, Access(options.token, options.tls_ca)) as door:
        await _first(door, options)
        for number in range(options.rounds):
            caller = Caller(door, options.prompt, options.new, seed=number + 1)
            telling = asyncio.create_task(told(caller, f"{loop} {name}, round {number + 1}", _say))
            begin = time.monotonic()
            try:
                if loop == "closed":
                    await caller.closed(options.concurrency, options.seconds)
                else:
                    await caller.opened(options.rate, options.seconds)
            finally:
                telling.cancel()
            rounds.append(figures.summary(caller.calls, begin, options.seconds, slo))
            said |= figures.words(caller.calls)
    return rounds, said


async def _first(door: Door, options: Namespace) -> None:
    """A call that is not counted: what is wrong with an address is said before a load is put on it."""
    call = await Caller(door, options.prompt, options.new).one()
    if not call.came:
        sys.exit(f"error: {door.NAME}: the first call was not answered ({call.words}); check the address")


@asynccontextmanager
async def _addresses(options: Namespace, folder: Path) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """What is loaded, and where its doors are."""
    if options.addresses:
        yield ", ".join(options.addresses.values()), options.addresses
        return
    model = tiny.write(folder / "tiny") if options.tiny else ensure_smollm2(progress=_say)
    _say(f"starting a pod on {model.name}")
    settings = Settings(model, options.rows, options.queue, options.threads, options.prompt + options.new)
    async with running(settings) as pod:
        yield model.name, {name: DOORS[name].at(pod.ports[DOORS[name].PORT]) for name in options.doors}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
