"""Asking a running `helios up` for a change: what `reassess`, `switch`, `rollback` and `pause` have in
common."""

from __future__ import annotations

import asyncio

from helios_operator.local import admin
from helios_operator.local.admin import Change

from helios_cli.state import State


def ask(found: State, change: Change, answer: str) -> int:
    """Has it made, and says where to look."""
    asyncio.run(admin.ask(found.folder, change))
    print(f"{answer}; `helios why {change.deployment}` says what comes of it")
    return 0
