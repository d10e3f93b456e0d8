"""Fixtures of the first run on tiny models."""

from tests.local.world import first_run, no_process_is_left, state, volumes

__all__ = ["first_run", "no_process_is_left", "state", "volumes"]
