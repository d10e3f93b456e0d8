"""`helios reassess NAME`: look for something better now, by the same rules as ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from helios_operator.api import annotations as by_hand
from helios_operator.local.admin import Change

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.asking import ask


def run(argv: Sequence[str]) -> int:
    options = Parser("reassess", "Look for something better now.").with_name().with_state().parse_args(argv)
    found = state.holding(options.name, options.state)
    wanted = {by_hand.REASSESS: by_hand.reassess_value(datetime.now(UTC))}
    return ask(found, Change(options.name, annotations=wanted), f"{options.name} is being reassessed")
