"""`helios switch NAME CANDIDATE`: change to a candidate by hand, whatever the objective says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from helios_operator.api import annotations as by_hand
from helios_operator.errors import ObjectNotFoundError
from helios_operator.local.admin import Change
from helios_operator.local.store import DEPLOYMENT

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.asking import ask


def run(argv: Sequence[str]) -> int:
    parser = Parser("switch", "Change to a candidate by hand.").with_name().with_state()
    parser.add_argument("candidate", metavar="CANDIDATE", help="one of the deployment's candidates")
    options = parser.parse_args(argv)
    found = state.holding(options.name, options.state)
    known = candidates(found.store.get(DEPLOYMENT, options.name))
    if options.candidate not in known:
        problem = f"{options.name} has no {options.candidate!r}"
        raise ObjectNotFoundError("candidate", problem, f"name one of {', '.join(known)}")
    return switch(found, options.name, options.candidate)


def switch(found: state.State, name: str, candidate: str) -> int:
    wanted = {by_hand.SWITCH_TO: by_hand.switch_value(candidate, datetime.now(UTC))}
    return ask(found, Change(name, annotations=wanted), f"{name} changes to {candidate}")


def candidates(deployment: Mapping[str, Any]) -> list[str]:
    """Names, from the spec or (chosen by a selector) from the status."""
    listed = deployment["spec"].get("candidates") or deployment.get("status", {}).get("candidates", [])
    return [candidate["name"] for candidate in listed]
