"""The entry of the `helios` command: finds the verb, runs it, turns what was raised into one line.

A verb's module is imported only when it is asked for, so that `helios --help` needs neither torch nor grpc.
It must not know what the verbs do.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from helios_operator.errors import OperatorError
from helios_operator.local import lifeline

from helios_cli import extras
from helios_cli.arguments import HELIOS

VERBS = {
    "up": "serve what FILE asks for on this machine, and adapt it to the traffic",
    "status": "what serves, and the conditions",
    "why": "the last decisions, with their numbers",
    "report": "a deployment's history as one HTML file",
    "profiles": "what was measured",
    "reassess": "start a reassessment now",
    "switch": "change to a candidate by hand",
    "rollback": "go back to the previous candidate",
    "pause": "stop all changes (--off: allow them again)",
    "rm": "delete a deployment of this machine that does not run",
    "generate": "send a prompt, stream the answer",
    "capacity": "will it fit: tokens and requests by depth and precision",
    "plan": "what would be chosen and why, from profiles; changes nothing",
    "simulate": "what the control loop would have done with recorded traffic; starts nothing",
    "model": "the directory of a model; downloads it first if needed",
    "operator": "the control loop of a cluster, as the chart runs it",
    "serve": "one serving process",
    "profile": "measure a model's exits: quality, time, memory",
    "tune": "train exit heads for a checkpoint",
    "bench": "run one of the benchmarks of a checkout",
    "version": "versions of HELIOS and of what it runs on",
}
_WRONG_INPUT, _INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 2 for what the user can put right."""
    lifeline.hold_on()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return enter(["version"] if arguments == ["--version"] else arguments, HELIOS, VERBS)


def enter(arguments: list[str], program: str, verbs: Mapping[str, str], *more: str) -> int:
    """`more`: what the verbs are told beside their arguments."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(program, verbs))
        return 0 if arguments else _WRONG_INPUT
    verb, *rest = arguments
    if verb not in verbs:
        return _say(f"{verb}: is not a verb; use one of {', '.join(verbs)}")
    return _run(verb, rest, *more)


def _run(verb: str, arguments: list[str], *more: str) -> int:
    try:
        module = importlib.import_module(f"helios_cli.verbs.{verb}")
        return int(module.run(arguments, *more))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        lines = _told(error) or _lacking(verb, error)
        if not lines:
            raise
        return _say(*lines)


def _told(error: Exception) -> list[str]:
    """The lines of an error that the user can put right; none for a bug."""
    from helios_operator.api.problems import Invalid
    from helios_server.errors import HeliosError

    if isinstance(error, Invalid):
        return [str(problem) for problem in error.problems]
    return [str(error)] if isinstance(error, OperatorError | HeliosError) else []


def _lacking(verb: str, error: Exception) -> list[str]:
    """The same, of a library that is not installed: the extra that brings it."""
    if not isinstance(error, ModuleNotFoundError) or extras.is_of_ours(error.name or ""):
        return []
    try:
        extras.check(verb)
    except OperatorError as lacking:
        return [str(lacking)]
    return []


def _say(*lines: str) -> int:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return _WRONG_INPUT


def _help(program: str, verbs: Mapping[str, str]) -> str:
    width = max(map(len, verbs))
    lines = "\n".join(f"  {verb:{width}}  {summary}" for verb, summary in verbs.items())
    return (
        "helios: serves early-exit LLMs, measures each exit's quality and speed, adapts to the traffic\n\n"
        f"usage: {program} VERB ...   ({program} VERB --help lists its options)\n\n{lines}"
    )
