"""A pod that serves the real model with its heads, for the tests of clients that people have."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from helios_server.models.store import ensure_smollm2

from tests.rpc.pods import Served, serving

LAYERS, EXITS = 30, (24, 27)


def real_pod(**limits: Any) -> AbstractAsyncContextManager[Served]:
    engine = {"dtype": "float16", "threads": 1}
    heads = {"exits_uri": "builtin://general", "exit_layers": EXITS}
    return serving(ensure_smollm2(), engine=engine, candidate="smollm2", **heads | limits)
