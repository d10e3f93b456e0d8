"""Settings for all tests. Property tests have no deadline: the machine may be busy with others."""

from __future__ import annotations

from hypothesis import settings

from tests.sizes import examples

settings.register_profile("helios", deadline=None, max_examples=examples(100))
settings.load_profile("helios")
