"""Settings for all tests. Property tests have no deadline: the machine may be busy with others."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from tests.documentation import blocks
from tests.sizes import examples

settings.register_profile("helios", deadline=None, max_examples=examples(100))
settings.load_profile("helios")


def pytest_collection_finish() -> None:
    """What is imported stays, and collections of garbage pass it over: where much is alive they are rare and
    slow, and pods that tests have ended wait for them."""
    gc.collect()
    gc.freeze()
    gc.collect()  # of nothing, which is what the next one is measured by


@pytest.fixture(autouse=True, scope="session")
def _auto_as_on_another_machine() -> None:
    """HELIOS_TEST_AUTO=bfloat16 has `auto` resolve as where a processor multiplies it, float16 as elsewhere:
    no test may be decided by the machine that it runs on."""
    if forced := os.environ.get("HELIOS_TEST_AUTO"):
        from helios_server.models import linear  # a session of pure tests never imports torch

        linear.default_dtype = lambda device_type: forced


@pytest.fixture
def documented(request: pytest.FixtureRequest) -> list[blocks.Block]:
    """The blocks of README and docs that name this test, page by page."""
    file = request.path.relative_to(blocks.ROOT).as_posix()
    return blocks.of(f"{file}::{request.function.__name__}")
