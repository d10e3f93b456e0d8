"""Where HeliosDeployments are, for the verbs that read and change them: the state folders of this machine, or
a cluster.

A verb opens the place that its arguments name, and does not know which it is. Which one:

- `--state` names a folder; `--namespace`, `--all-namespaces`, `--context` and `--kubeconfig` name a cluster;
- with none of them, a state folder that holds the name (without a name: any), else the cluster of the
  kubeconfig or of the pod's account, if there is one.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from helios_operator.cluster import kubeconfig
from helios_operator.errors import OperatorError
from helios_operator.local.admin import Change
from helios_operator.local.events import Record

from helios_cli import state

Object = dict[str, Any]


class Found(Protocol):
    """One HeliosDeployment. `running`: somebody keeps it as it should be."""

    @property
    def obj(self) -> Object: ...

    @property
    def running(self) -> bool: ...

    def records(self) -> list[Record]:
        """What was decided and what happened, newest last."""
        ...

    def profiles(self) -> list[Object]:
        """The rows beside it: its own, and those of its neighbours."""
        ...

    def models(self) -> list[Object]:
        """The catalogue that it may choose from."""
        ...

    def text(self, config_map: str, key: str) -> str | None:
        """None where it cannot be read."""
        ...

    def change(self, change: Change) -> None: ...


class Place(Protocol):
    """A context manager. What cannot be found or reached is an OperatorError that says how to put it
    right."""

    @property
    def nothing(self) -> str:
        """What to say of an empty list."""
        ...

    def find(self, name: str) -> Found: ...

    def all(self) -> Sequence[Found]: ...

    def profiles(self) -> list[Object]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def place(options: Namespace) -> Place:
    """The one that the arguments of a verb mean."""
    named = options.namespace or options.everywhere or options.context or options.kubeconfig
    if options.state is not None and named:
        problem = "--state names a folder of this machine, the others a cluster"
        raise OperatorError("arguments", problem, "give one of them")
    if options.everywhere and options.name:
        raise OperatorError("arguments", "--all-namespaces with a name", "give its --namespace")
    if not (named or options.cluster_only):
        folders = state.Folders(options.state)
        if options.state is not None or folders.hold(options.name) or not kubeconfig.is_there():
            return folders
    from helios_cli.cluster import Cluster  # not before it is needed: the command starts in a moment without

    return Cluster(options.kubeconfig, options.context, options.namespace, options.everywhere)
