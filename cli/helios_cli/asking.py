"""Asking for a change: what `reassess`, `switch`, `rollback` and `pause` have in common."""

from __future__ import annotations

from argparse import Namespace

from helios_operator.local.admin import Change

from helios_cli.places import Found


def ask(found: Found, change: Change, options: Namespace, answer: str) -> int:
    """Has it made, and says where to look."""
    found.change(change)
    namespace = f" -n {options.namespace}" if options.namespace else ""
    print(f"{answer}; `{options.program} why {change.deployment}{namespace}` shows the result")
    return 0
