"""The tiny model of the doors' tests, and a pod that serves it."""

import copy
import json

import pytest
from helios_client import aio, sync
from helios_proto.client import CHANNEL_OPTIONS, SERVICE_CONFIG

from tests.rpc.conftest import heads, pod, quick_looks, tiny

__all__ = ["heads", "pod", "quick_looks", "tiny"]


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as otherwise, a moment apart."""
    config = copy.deepcopy(SERVICE_CONFIG)
    config["methodConfig"][0]["retryPolicy"] |= {"initialBackoff": "0.01s", "maxBackoff": "0.02s"}
    options = dict(CHANNEL_OPTIONS) | {"grpc.service_config": json.dumps(config)}
    for module in (sync, aio):
        monkeypatch.setattr(module, "CHANNEL_OPTIONS", tuple(options.items()))
