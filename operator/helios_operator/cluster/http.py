"""The operator's own page: /healthz for the kubelet, /metrics for Prometheus.

Opened by `app`. It is healthy while it hears the API server, not while all it manages is well.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from helios_proto import addresses

from helios_operator.cluster.metrics import Metrics

DEAF_SECONDS = 900.0
"""Without a word from the API server for so long, though there was something to tell: it is deaf."""


class Page:
    def __init__(self, metrics: Metrics, heard: Callable[[], float]) -> None:
        """`heard`: when the API server last told something, in Unix seconds."""
        self._metrics = metrics
        self._heard = heard
        self._runner: web.AppRunner | None = None

    async def open(self, host: str, port: int) -> int:
        """On all that `host` stands for. Returns the port, which 0 leaves to the system."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._show_metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        sockets = addresses.listen(host, port)
        for each in sockets:
            await web.SockSite(self._runner, each).start()
        return addresses.port_of(sockets)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        age = time.time() - self._heard()
        text = f"last event from the API server {age:.0f} s ago\n"
        return web.Response(status=200 if age < DEAF_SECONDS else 503, text=text)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        self._metrics.heard.set(self._heard())
        return web.Response(body=self._metrics.page(), content_type="text/plain")
