"""HeliosDeployments of a cluster, as a user with a kubeconfig reads and changes them.

The cluster's half of `places`. It asks the API server only; what a verb wants is written as `kubectl
annotate` and `kubectl patch` would write it, and the operator does the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from helios_operator.cluster.client import Client
from helios_operator.cluster.events import ACTION, NUMBERS
from helios_operator.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    MODEL,
    PROFILE,
    Kind,
    Object,
    version_of,
)
from helios_operator.errors import ClusterError, NotFoundError, ObjectNotFoundError, OperatorError
from helios_operator.local.admin import Change
from helios_operator.local.events import Record
from helios_operator.render import labels

T = TypeVar("T")
_NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
_MANAGER = "helios-cli"


class Cluster:
    """`namespace` None: the kubeconfig's; `everywhere`: all of them."""

    def __init__(
        self, file: str | None, context: str | None, namespace: str | None, everywhere: bool = False
    ) -> None:
        self._runner = asyncio.Runner()
        connecting = Client.connect(file=file, context=context, manager=_MANAGER)
        self._client: Client = self._runner.run(connecting)
        self.namespace = "" if everywhere else namespace or self._client.namespace

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    @property
    def nothing(self) -> str:
        where = f"in namespace {self.namespace}" if self.namespace else "in any namespace"
        return f"No HeliosDeployments {where}. Apply one: see examples/."

    def find(self, name: str) -> ClusterDeployment:
        obj = self.ask(self._client.get(DEPLOYMENT, self.namespace, name))
        if obj is None:
            raise self._missing(name)
        return ClusterDeployment(self, obj)

    def all(self) -> list[ClusterDeployment]:
        return [ClusterDeployment(self, obj) for obj in self._list(DEPLOYMENT, self.namespace)]

    def profiles(self) -> list[Object]:
        return self._list(PROFILE, self.namespace)

    def models(self) -> list[Object]:
        """Mostly there are none, which is nothing to ask about."""
        return self.ask(self._client.list(MODEL, self.namespace))

    # -- of one deployment ----------------------------------------------------------------------------------

    def events(self, obj: Object) -> list[Object]:
        """Oldest first; the server forgets them after a while, by default an hour."""
        metadata = obj["metadata"]
        selector = f"{labels.DEPLOYMENT}={metadata['name']}"
        found = self.ask(self._client.list(EVENT, metadata["namespace"], selector))
        its = [event for event in found if event["involvedObject"].get("uid") == metadata["uid"]]
        return sorted(its, key=lambda event: (event["lastTimestamp"], version_of(event)))

    def held(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """None as well for whoever may not read it."""
        try:
            return self._runner.run(self._client.get(kind, namespace, name))
        except ClusterError:
            return None

    def merge(self, obj: Object, changes: Object) -> None:
        metadata = obj["metadata"]
        try:
            self.ask(self._client.merge(DEPLOYMENT, metadata["namespace"], metadata["name"], changes))
        except NotFoundError:
            raise self._missing(metadata["name"]) from None

    # -- how ------------------------------------------------------------------------------------------------

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """The answer, or the server's refusal in words that help."""
        try:
            return self._runner.run(question)
        except NotFoundError:
            raise
        except ClusterError as error:
            raise _refusal(error, self._client.server) from None

    def _list(self, kind: Kind, namespace: str) -> list[Object]:
        """The server lists nothing in a namespace that does not exist: that is told apart."""
        try:
            found = self.ask(self._client.list(kind, namespace))
        except NotFoundError:
            found = []
        if not found:
            self._look_around()
        return found

    def _missing(self, name: str) -> OperatorError:
        self._look_around()
        there = ", ".join(obj["metadata"]["name"] for obj in self._list(DEPLOYMENT, self.namespace))
        problem = f"there is no HeliosDeployment {name!r} in namespace {self.namespace}"
        return ObjectNotFoundError(
            "name", f"{problem} (there: {there or 'nothing'})", "name one, or give another --namespace"
        )

    def _look_around(self) -> None:
        """Raises what is missing where there should be an object: HELIOS itself, or the namespace."""
        if not self.ask(self._client.serves(DEPLOYMENT.group, DEPLOYMENT.version)):
            problem = f"{self._client.server} has no CRD for HeliosDeployments"
            raise OperatorError("cluster", problem, "install HELIOS there: see docs/install.md")
        if self.namespace and not self._has_namespace():
            problem = f"there is no {self.namespace!r} on {self._client.server}"
            raise ObjectNotFoundError("namespace", problem, "name one that `kubectl get namespaces` lists")

    def _has_namespace(self) -> bool:
        """True as well for whoever may not ask."""
        try:
            return self._runner.run(self._client.get(_NAMESPACE, "", self.namespace)) is not None
        except ClusterError as error:
            if error.status == 403:
                return True
            raise _refusal(error, self._client.server) from None


class ClusterDeployment:
    """A HeliosDeployment, read once."""

    running = True

    def __init__(self, cluster: Cluster, obj: Object) -> None:
        self.obj = obj
        self._cluster = cluster

    def records(self) -> list[Record]:
        return [record(event) for event in self._cluster.events(self.obj)]

    def profiles(self) -> list[Object]:
        return self._cluster.profiles()

    def models(self) -> list[Object]:
        if "candidateSelector" not in self.obj["spec"]:
            return []
        return self._cluster.models()

    def text(self, config_map: str, key: str) -> str | None:
        found = self._cluster.held(CONFIG_MAP, self.obj["metadata"]["namespace"], config_map)
        return ((found or {}).get("data") or {}).get(key)

    def change(self, change: Change) -> None:
        self._cluster.merge(self.obj, patch(change))


def patch(change: Change) -> Object:
    """A JSON merge patch: only what is asked for."""
    wanted: Object = {}
    if change.annotations:
        wanted["metadata"] = {"annotations": dict(change.annotations)}
    if change.spec_path:
        value = change.spec_value
        for key in reversed(change.spec_path):
            value = {key: value}
        wanted["spec"] = value
    return wanted


def record(event: Object) -> Record:
    """An event of the operator: with an action in its annotations, it is a decision."""
    about, name = event["metadata"].get("annotations") or {}, event["involvedObject"]["name"]
    action = about.get(ACTION)
    return Record(
        time=event["lastTimestamp"],
        deployment=name,
        source="decision" if action else "event",
        about=action or name,
        type=event["type"],
        reason=event["reason"],
        message=event["message"].removeprefix(f"{action}: "),
        numbers=json.loads(about.get(NUMBERS, "{}")),
    )


def _refusal(error: ClusterError, server: str) -> OperatorError:
    match error.status:
        case 0:
            fix = "see that it runs, or choose another with --context or --kubeconfig"
            return OperatorError("cluster", f"{server}: {error.problem}", fix)
        case 401:
            return OperatorError(
                "credentials", f"{server} does not accept them", "log in to the cluster again"
            )
        case 403:
            fix = "ask for the role view (to read) or edit (to change) in that namespace"
            return OperatorError("rights", error.problem, fix)
    return OperatorError(error.field, error.problem, "correct it and run the verb again")
