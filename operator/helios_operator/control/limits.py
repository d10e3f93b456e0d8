"""Limits documents that an operator of this or another release wrote, read back by whoever observes them."""

from __future__ import annotations

from helios_contract import limits as document
from helios_contract.codec import Malformed
from helios_contract.limits import Limits

from helios_operator.errors import StateError


def read(text: str, where: str) -> Limits:
    """StateError names `where` when the text is not a limits document."""
    try:
        return document.from_json(text)
    except Malformed as error:
        fix = "restore the file, or delete the revision's folder"
        raise StateError(where, f"is damaged ({error})", fix) from None
