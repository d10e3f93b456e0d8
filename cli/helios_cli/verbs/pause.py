"""`helios pause NAME [--off]`: hold every change, or no longer: spec.rollout.paused."""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.local.admin import Change

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.asking import ask


def run(argv: Sequence[str]) -> int:
    parser = Parser("pause", "Hold every change; what serves goes on.").with_name().with_state()
    parser.add_argument("--off", action="store_true", help="let changes happen again")
    options = parser.parse_args(argv)
    found = state.holding(options.name, options.state)
    change = Change(options.name, spec_path=("rollout", "paused"), spec_value=not options.off)
    return ask(found, change, f"{options.name} is {'no longer ' if options.off else ''}paused")
