"""`helios pause NAME [--off]`: hold every change, or no longer: spec.rollout.paused."""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.local.admin import Change

from helios_cli.arguments import HELIOS, Parser
from helios_cli.asking import ask
from helios_cli.places import place


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("pause", "Stop all changes; what serves keeps serving.", program).with_place().with_name()
    parser.add_argument("--off", action="store_true", help="allow changes again")
    options = parser.parse_args(argv)
    change = Change(options.name, spec_path=("rollout", "paused"), spec_value=not options.off)
    with place(options) as here:
        answer = f"{options.name} is {'no longer ' if options.off else ''}paused"
        return ask(here.find(options.name), change, options, answer)
