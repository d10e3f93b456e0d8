"""Settings for all tests. Property tests have no deadline: the machine may be busy with others."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("helios", deadline=None)
settings.load_profile("helios")
