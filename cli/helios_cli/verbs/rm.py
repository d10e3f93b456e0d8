"""`helios rm NAME`: forgets a deployment of this machine that does not run."""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.errors import OperatorError
from helios_operator.local import lock
from helios_operator.local.removal import remove

from helios_cli import state
from helios_cli.arguments import Parser


def run(argv: Sequence[str]) -> int:
    parser = Parser("rm", "Delete a deployment of this machine that does not run.").with_state().with_name()
    options = parser.parse_args(argv)
    found = state.holding(options.name, options.state)
    if held := lock.holder(found.folder):
        fix = f"stop it first (Ctrl-C, or `kill {held.pid}`)"
        raise OperatorError("name", f"{options.name} runs in process {held.pid} ({held.command})", fix)
    rows = remove(found.folder, options.name)
    print(f"{options.name} is deleted, with {rows} profiles that nothing else used ({found.folder})")
    return 0
