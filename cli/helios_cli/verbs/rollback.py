"""`helios rollback NAME`: back to the candidate that served before the last change of candidate."""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.errors import ObjectNotFoundError
from helios_operator.local.store import DEPLOYMENT

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.verbs.switch import switch


def run(argv: Sequence[str]) -> int:
    options = Parser("rollback", "Back to what served before.").with_name().with_state().parse_args(argv)
    found = state.holding(options.name, options.state)
    history = found.store.get(DEPLOYMENT, options.name).get("status", {}).get("history", [])
    for entry in reversed(history):
        before = entry.get("from")
        if before and before["candidate"] != entry["to"]["candidate"]:
            return switch(found, options.name, before["candidate"])
    problem = f"{options.name} has not changed its candidate yet"
    raise ObjectNotFoundError("history", problem, f"choose one with `helios switch {options.name} CANDIDATE`")
