"""The operator as a process: kopf watches and tells, `cluster.Operator` works, a page answers the kubelet.

Called by `helios operator`. Wiring only: no handler does anything but pass on what it was told. Nothing here
writes to an object: no finalizer, no annotation, no progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import kopf
from helios_proto import addresses

from helios_operator.cluster import proxies
from helios_operator.cluster.client import PAGE, Client
from helios_operator.cluster.http import Page
from helios_operator.cluster.kinds import DEPLOYMENT, LABELLED, OURS, Kind
from helios_operator.cluster.metrics import Metrics
from helios_operator.cluster.operator import Operator, Options
from helios_operator.cluster.surroundings import budget_kind
from helios_operator.errors import ClusterError
from helios_operator.render.installation import Installation

_SERVER_SECONDS, _CLIENT_SECONDS = 300, 310
"""A watch is renewed after this, by the server or, should it have forgotten, by us."""
_SILENT_SECONDS = 70.0
"""A watch on which nothing came for so long is dead: the server sends a bookmark every minute."""
_ANSWER_SECONDS = 30.0
"""For everything but a watch."""
_RETRY_SECONDS = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    by: Installation
    options: Options = field(default_factory=Options)
    http_host: str = addresses.ANY
    http_port: int = 8080


async def run(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Until SIGTERM, or `stop`. What serves goes on serving."""
    metrics = Metrics()
    client = await Client.connect(metrics.called)
    try:
        await _server_knows_us(client)
        operator = Operator(client, settings.by, settings.options, await budget_kind(client), metrics)
        page = Page(metrics, lambda: operator.heard)
        port = await page.open(settings.http_host, settings.http_port)
        _log.info("listening on %s", addresses.join(settings.http_host, port))
        try:
            await _watch_and_work(operator, settings.options, stop)
        finally:
            await page.close()
    finally:
        await client.close()


async def _server_knows_us(client: Client) -> None:
    """Waits for the server, and for the CustomResourceDefinitions."""
    while True:
        try:
            if await client.serves(DEPLOYMENT.group, DEPLOYMENT.version):
                return
            _log.warning("the server has no %s: install the chart's CRDs", DEPLOYMENT.api_version)
        except ClusterError as error:
            _log.warning("%s", error)
        await asyncio.sleep(_RETRY_SECONDS)


async def _watch_and_work(operator: Operator, options: Options, stop: asyncio.Event | None) -> None:
    working = asyncio.create_task(operator.run(), name="work")
    watching = asyncio.create_task(
        kopf.operator(
            registry=_registry(operator, options.watched),
            settings=_settings(options.watched),
            standalone=True,
            clusterwide=not options.namespaces,
            namespaces=options.namespaces,
            stop_flag=stop,
        ),
        name="watch",
    )
    done, rest = await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*rest)
    for task in done:
        task.result()


def _registry(operator: Operator, watched: tuple[Kind, ...]) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for kind in watched:
        _wire(registry, operator, kind)
    return registry


def _wire(registry: kopf.OperatorRegistry, operator: Operator, kind: Kind) -> None:
    """The index is told of every object before any event handler runs: passes begin when all is known.
    Coroutines, as kopf would run plain functions in threads."""
    where = (kind.group, kind.version, kind.plural)

    async def seen(body: kopf.Body, **_: Any) -> None:
        operator.seen(kind, {**dict(body), "apiVersion": kind.api_version, "kind": kind.name})

    async def happened(event: kopf.RawEvent, **_: Any) -> None:
        operator.begin()
        if event["type"] == "DELETED":
            operator.gone(kind, dict(event["object"]))
        elif event["type"] is None:
            operator.listed()

    kopf.index(*where, id=f"{kind.plural}-seen", registry=registry)(seen)
    kopf.on.event(*where, id=f"{kind.plural}-happened", registry=registry)(happened)


def _login(**arguments: Any) -> Any:
    """As the account of the pod, or by KUBECONFIG; through the proxy that the client uses."""
    found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
    return found and replace(found, proxy_url=found.proxy_url or proxies.proxy_for(found.server))


def _settings(watched: tuple[Kind, ...]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = _SERVER_SECONDS
    settings.watching.client_timeout = _CLIENT_SECONDS
    settings.watching.inactivity_timeout = _SILENT_SECONDS
    settings.networking.request_timeout = _ANSWER_SECONDS
    settings.networking.error_backoffs = _Backoffs()
    for kind in watched:
        if kind in LABELLED:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OURS
    return settings


class _Backoffs:
    """Seconds between tries of an API call: without an end, for an API server comes back one day."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 2, 3, 5, 8), itertools.repeat(15))
