"""The one client of the API server: plain objects in and out, a bounded number of calls at once, patience
where the server asks for it.

Opened by `app`, used by everything in `cluster` that reads by name or writes. It keeps no object, and it
raises nothing but ClusterError.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from helios_operator.cluster import kubeconfig, proxies
from helios_operator.cluster.kinds import Kind, Object
from helios_operator.errors import ClusterError, ConflictError, NotFoundError
from helios_operator.render import labels

PAGE = 50
"""Objects that are asked for at once. What a list of thousands takes for a moment stays with the process."""
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_CALLS_AT_ONCE = 16
_TIMEOUT_SECONDS = 30.0
_TRIES = 4
_LONGEST_WAIT_SECONDS = 15.0
_OVERLOADED = (429, 503, 504)
_ERRORS = {404: NotFoundError, 409: ConflictError}
Measure = Callable[[str, Kind | None, int, float], None]
"""(verb, kind, HTTP status, seconds)"""


class Client:
    """Speaks as the account of its configuration. `namespace`: the one that it names; `manager`: whose the
    fields are that are written. `close` it."""

    def __init__(
        self,
        configuration: Configuration,
        measure: Measure | None = None,
        namespace: str = "default",
        manager: str = labels.MANAGER,
    ) -> None:
        configuration.connection_pool_maxsize = _CALLS_AT_ONCE
        configuration.proxy = configuration.proxy or proxies.proxy_for(str(configuration.host))
        configuration.client_session_kwargs = {"trust_env": False}  # it knows no networks in NO_PROXY
        self._api = ApiClient(configuration)
        self._api.user_agent = manager
        self._manager = ("fieldManager", manager)
        self._slots = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._measure = measure or (lambda *_: None)
        self.server = str(configuration.host)
        self.namespace = namespace

    @classmethod
    async def connect(
        cls,
        measure: Measure | None = None,
        *,
        file: str | None = None,
        context: str | None = None,
        manager: str = labels.MANAGER,
    ) -> Self:
        """By the kubeconfig `file`, else by KUBECONFIG (or ~/.kube/config), in a pod by its service
        account. KubeconfigError when there is none, or no way through the proxy that is set."""
        configuration = Configuration()
        namespace = await kubeconfig.load(configuration, file, context)
        return cls(configuration, measure, namespace, manager)

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    # -- reading --------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """None: there is none."""
        try:
            return await self._call("GET", kind.path(namespace, name), kind, "get")
        except NotFoundError:
            return None

    async def list(
        self, kind: Kind, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        """All of them, in every namespace when none is given. `fields`: a field selector."""
        return [obj async for page in self.pages(kind, namespace, selector, fields=fields) for obj in page]

    async def pages(
        self, kind: Kind, namespace: str = "", selector: str = "", size: int = PAGE, fields: str = ""
    ) -> AsyncIterator[Sequence[Object]]:
        """What `list` gives, never more than `size` at once; all as they stood at the first page."""
        about = {"apiVersion": kind.api_version, "kind": kind.name}
        selectors = (("labelSelector", selector), ("fieldSelector", fields))
        query = [("limit", str(size)), *(pair for pair in selectors if pair[1])]
        rest: list[tuple[str, str]] = []
        while True:
            answer = await self._call("GET", kind.path(namespace), kind, "list", query=query + rest)
            yield [about | item for item in answer.get("items") or []]
            token = answer.get("metadata", {}).get("continue")
            if not token:
                return
            rest = [("continue", token)]

    async def serves(self, group: str, version: str) -> bool:
        """Does the server know this version of an API group?"""
        try:
            await self._call("GET", f"/apis/{group}/{version}", None, "get")
        except NotFoundError:
            return False
        return True

    # -- writing --------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, obj: Object) -> Object:
        """ConflictError (AlreadyExists) when there is one of that name."""
        path = kind.path(obj["metadata"].get("namespace", ""))
        return await self._call("POST", path, kind, "create", body=obj, query=[self._manager])

    async def apply(self, kind: Kind, obj: Object, subresource: str = "", *, force: bool = True) -> Object:
        """Server-side apply of all that the operator has to say of the object. `force` False: ConflictError
        where somebody else says otherwise."""
        path = kind.path(obj["metadata"].get("namespace", ""), obj["metadata"]["name"], subresource)
        query = [self._manager, ("force", str(force).lower())]
        return await self._call("PATCH", path, kind, "patch", body=obj, query=query, content=_APPLY)

    async def merge(self, kind: Kind, namespace: str, name: str, changes: Mapping[str, Any]) -> Object:
        """A few fields of an object that is not applied as a whole."""
        path, query = kind.path(namespace, name), [self._manager]
        return await self._call("PATCH", path, kind, "patch", body=changes, query=query, content=_MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        """What it owns goes with it, in the background. Deleting what does not exist is no error. `uid`: of
        this one, not of one that has its name by now."""
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind.path(namespace, name), kind, "delete", body=body)
        except NotFoundError:
            pass
        except ConflictError:
            if not uid:
                raise

    # -- how ------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        kind: Kind | None,
        verb: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Sequence[tuple[str, str]] = (),
        content: str = _JSON,
    ) -> Object:
        """Tries again where the server is overloaded; everything else is the next pass's business."""
        for attempt in range(1, _TRIES + 1):
            began = time.monotonic()
            status, wait, answer = await self._ask(method, path, body, query, content)
            self._measure(verb, kind, status, time.monotonic() - began)
            if status < 300:
                return answer
            if status not in _OVERLOADED or attempt == _TRIES:
                break
            await asyncio.sleep(min(_LONGEST_WAIT_SECONDS, wait or 0.5 * 2**attempt))
        problem = str(answer.get("message") or f"answered {status}")
        error = _ERRORS.get(status, ClusterError)
        raise error(f"{method} {path}", problem, status, str(answer.get("reason", "")))

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Sequence[tuple[str, str]],
        content: str,
    ) -> tuple[int, float, Object]:
        """Status, the seconds that the server asks to wait, and what it said. Status 0: it said nothing."""
        headers = {"Accept": _JSON, "Content-Type": content}
        try:
            async with self._slots:
                request = await self._api.param_serialize(
                    method,
                    path,
                    query_params=list(query),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                response = await self._api.call_api(*request, _request_timeout=_TIMEOUT_SECONDS)
                text = await response.read()  # type: ignore[no-untyped-call]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"the API server does not answer ({type(error).__name__}: {error})"
            raise ClusterError(f"{method} {path}", problem, 0, "Unreachable") from None
        wait = str(response.headers.get("Retry-After", ""))
        return response.status, float(wait) if wait.isdigit() else 0.0, _document(text)


def _document(text: bytes) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        return {"message": text.decode(errors="replace")[:500]}
    return found if isinstance(found, dict) else {}
