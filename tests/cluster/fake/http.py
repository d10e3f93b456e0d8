"""The server's door: its paths, verbs and media types, over HTTP on loopback.

Opened by `scene`. It speaks for `store` and keeps nothing but the lists that are being read in pages.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Sequence

from aiohttp import web
from helios_operator.cluster.kinds import Kind, Object, key_of

from tests.cluster.fake.refusal import Refusal
from tests.cluster.fake.selectors import selects
from tests.cluster.fake.store import News, Store

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)
Call = tuple[str, str]
"""Method and path."""


class Door:
    """`kinds`: what is served. `calls`: every call that came, in order. `fails`: what answers instead of the
    store, for the calls that it is asked of."""

    def __init__(self, store: Store, kinds: tuple[Kind, ...]) -> None:
        self.store = store
        self.calls: list[Call] = []
        self.fails: Callable[[str, str], Refusal | None] = lambda method, path: None
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in kinds}
        self._rest: dict[str, tuple[int, Sequence[Object]]] = {}
        self._tokens = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._watchers: set[asyncio.Queue[News]] = set()
        store.told.append(self._tell)

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call[0] != "GET"]

    async def open(self) -> str:
        """Returns the address."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _tell(self, news: News) -> None:
        for queue in self._watchers:
            queue.put_nowait(news)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        try:
            if failure := self.fails(request.method, request.path):
                raise failure
            return await self._dispatch(request)
        except Refusal as error:
            headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
            return web.json_response(error.document(), status=error.code, headers=headers)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        if group := re.fullmatch(r"/apis/([^/]+)/([^/]+)", request.path):
            return self._discover(*group.groups())
        found = _PATH.fullmatch(request.path)
        kind = found and self._kinds.get(
            (found["group"] or "", found["core"] or found["version"], found["plural"])
        )
        if not found or not kind:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        namespace, name, part = found["namespace"] or "", found["name"] or "", found["part"] or ""
        if request.method == "GET" and not name:
            if request.query.get("watch") in ("1", "true"):
                return await self._watch(request, kind, namespace)
            return self._list(request, kind, namespace)
        body = json.loads(await request.text() or "{}")  # an apply is YAML, of which our client writes JSON
        match request.method:
            case "GET":
                return web.json_response(self.store.get(kind, namespace, name))
            case "POST":
                body["metadata"] |= {"namespace": namespace} if kind.namespaced else {}
                manager = request.query.get("fieldManager", "unknown")
                return web.json_response(self.store.create(kind, body, manager), status=201)
            case "PUT":
                return web.json_response(self.store.update(kind, body, "unknown", part))
            case "PATCH":
                return self._patch(request, kind, namespace, name, part, body)
            case "DELETE":
                wanted = body.get("preconditions") or {}
                deleted = self.store.delete(
                    kind,
                    namespace,
                    name,
                    uid=wanted.get("uid", ""),
                    version=wanted.get("resourceVersion", ""),
                    grace=body.get("gracePeriodSeconds"),
                )
                return web.json_response(deleted)
        raise Refusal(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
        )

    def _patch(
        self, request: web.Request, kind: Kind, namespace: str, name: str, part: str, body: Object
    ) -> web.Response:
        manager = request.query.get("fieldManager", "")
        if request.content_type == "application/merge-patch+json":
            return web.json_response(
                self.store.merge(kind, namespace, name, body, manager or "unknown", part)
            )
        if request.content_type != "application/apply-patch+yaml":
            raise Refusal(415, "UnsupportedMediaType", f"the body has the type {request.content_type}")
        if not manager:
            raise Refusal(422, "Invalid", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        if kind.namespaced:
            body["metadata"].setdefault("namespace", namespace)
        if key_of(body) != (namespace, name):
            raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
        force = request.query.get("force") == "true"
        answer, made = self.store.apply(kind, body, manager, force=force, subresource=part)
        return web.json_response(answer, status=201 if made else 200)

    def _list(self, request: web.Request, kind: Kind, namespace: str) -> web.Response:
        token = request.query.get("continue", "")
        if token:
            if token not in self._rest:
                why = "The provided continue parameter is too old to display a consistent list result."
                raise Refusal(410, "Expired", why)
            version, found = self._rest.pop(token)
        else:
            version = self.store.version
            selectors = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
            found = self.store.views(kind, namespace, *selectors)
        size = int(request.query.get("limit", "0")) or len(found)
        page, rest = found[:size], found[size:]
        metadata: Object = {"resourceVersion": str(version)}
        if rest:
            metadata["continue"] = f"page-{next(self._tokens)}"
            self._rest[metadata["continue"]] = (version, rest)
        items = [{k: v for k, v in obj.items() if k not in ("apiVersion", "kind")} for obj in page]
        about = {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata}
        return web.json_response(about | {"items": items})

    async def _watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        """From a version on, until the client goes."""
        since = int(request.query.get("resourceVersion") or self.store.version)
        selector = request.query.get("labelSelector", "")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        queue: asyncio.Queue[News] = asyncio.Queue()
        self._watchers.add(queue)
        for news in [news for news in self.store.news if news.version > since]:
            queue.put_nowait(news)
        try:
            while True:
                news = await queue.get()
                here = news.kind == kind and namespace in ("", news.obj["metadata"].get("namespace", ""))
                if here and (event := seen(news, selector)):
                    await answer.write(json.dumps(event).encode() + b"\n")
        finally:
            self._watchers.discard(queue)

    def _discover(self, group: str, version: str) -> web.Response:
        served = [kind for kind in self._kinds.values() if (kind.group, kind.version) == (group, version)]
        if not served:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        resources = [
            {"name": kind.plural, "kind": kind.name, "namespaced": kind.namespaced, "verbs": ["get"]}
            for kind in served
        ]
        about = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}"}
        return web.json_response(about | {"resources": resources})


def seen(news: News, selector: str) -> Object | None:
    """As one who watches by a selector hears of it: what no longer matches is deleted for them."""
    after = news.type != "DELETED" and selects(selector, news.obj)
    before = news.before is not None and selects(selector, news.before)
    if not (after or before):
        return None
    type = ("MODIFIED" if before else "ADDED") if after else "DELETED"
    return {"type": type, "object": news.obj}
