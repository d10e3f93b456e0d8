"""`helios reassess NAME`: look for something better now, by the same rules as ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from helios_operator.api import annotations as by_hand
from helios_operator.local.admin import Change

from helios_cli.arguments import HELIOS, Parser
from helios_cli.asking import ask
from helios_cli.places import place


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("reassess", "Start a reassessment now.", program).with_place().with_name()
    options = parser.parse_args(argv)
    wanted = {by_hand.REASSESS: by_hand.reassess_value(datetime.now(UTC))}
    with place(options) as here:
        found = here.find(options.name)
        answer = f"{options.name} is being reassessed"
        return ask(found, Change(options.name, annotations=wanted), options, answer)
