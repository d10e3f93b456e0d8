"""`helios switch NAME CANDIDATE`: change to a candidate by hand, whatever the objective says."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from helios_operator.api import annotations as by_hand
from helios_operator.errors import ObjectNotFoundError
from helios_operator.local.admin import Change

from helios_cli.arguments import HELIOS, Parser
from helios_cli.asking import ask
from helios_cli.places import Found, place


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("switch", "Change to a candidate by hand.", program).with_place().with_name()
    parser.add_argument("candidate", metavar="CANDIDATE", help="one of the deployment's candidates")
    options = parser.parse_args(argv)
    with place(options) as here:
        found = here.find(options.name)
        known = candidates(found.obj)
        if options.candidate not in known:
            problem = f"{options.name} has no {options.candidate!r}"
            raise ObjectNotFoundError("candidate", problem, f"name one of {', '.join(known)}")
        return switch(found, options, options.candidate)


def switch(found: Found, options: Namespace, candidate: str) -> int:
    wanted = {by_hand.SWITCH_TO: by_hand.switch_value(candidate, datetime.now(UTC))}
    change = Change(options.name, annotations=wanted)
    return ask(found, change, options, f"{options.name} changes to {candidate}")


def candidates(deployment: Mapping[str, Any]) -> list[str]:
    """Names, from the spec or (chosen by a selector) from the status."""
    listed = deployment["spec"].get("candidates") or deployment.get("status", {}).get("candidates", [])
    return [candidate["name"] for candidate in listed]
