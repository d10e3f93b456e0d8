"""`helios rollback NAME`: back to the candidate that served before the last change of candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helios_operator.errors import ObjectNotFoundError

from helios_cli.arguments import HELIOS, Parser
from helios_cli.places import place
from helios_cli.verbs.switch import switch


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("rollback", "Go back to the previous candidate.", program).with_place().with_name()
    options = parser.parse_args(argv)
    with place(options) as here:
        found = here.find(options.name)
        return switch(found, options, _before(found.obj, options.program))


def _before(deployment: Mapping[str, Any], program: str) -> str:
    for entry in reversed(deployment.get("status", {}).get("history", [])):
        before = entry.get("from")
        if before and before["candidate"] != entry["to"]["candidate"]:
            return str(before["candidate"])
    name = deployment["metadata"]["name"]
    fix = f"choose one with `{program} switch {name} CANDIDATE`"
    raise ObjectNotFoundError("history", f"{name} has not changed its candidate yet", fix)
