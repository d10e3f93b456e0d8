"""Fixtures of the first run on tiny models."""

from tests.local.world import no_process_is_left, state, volumes

__all__ = ["no_process_is_left", "state", "volumes"]
