"""Arguments that several verbs share, and a parser whose complaints look like every other error of the
command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from helios_operator.errors import OperatorError

OUTPUTS = ("table", "json", "yaml")
HELIOS, KUBECTL = "helios", "kubectl helios"
"""What a person typed before the verb."""


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its own usage: the command shows one line."""

    def __init__(self, verb: str, description: str, program: str = HELIOS) -> None:
        super().__init__(prog=f"{program} {verb}", description=description, allow_abbrev=False)
        self._program = program

    def error(self, message: str) -> NoReturn:
        raise OperatorError("arguments", message, f"see `{self.prog} --help`")

    def with_output(self) -> Parser:
        self.add_argument(
            "-o", "--output", choices=OUTPUTS, default="table", help="output format (default: table)"
        )
        return self

    def with_state(self) -> Parser:
        self.add_argument(
            "--state", type=Path, metavar="DIR", help="the state folder of `helios up` (default: by name)"
        )
        return self

    def with_place(self, *, several: bool = False) -> Parser:
        """What `places.place` reads. `several`: the verb may look into all namespaces at once."""
        self.set_defaults(program=self._program, state=None, everywhere=False, name=None)
        self.set_defaults(cluster_only=self._program == KUBECTL)
        if self._program != KUBECTL:
            self.with_state()
        add = self.add_argument_group("of a cluster").add_argument
        add("-n", "--namespace", metavar="NAME", help="namespace (default: the kubeconfig's)")
        if several:
            add(
                "-A", "--all-namespaces", dest="everywhere", action="store_true", help="search all namespaces"
            )
        add("--context", metavar="NAME", help="context of the kubeconfig (default: the current one)")
        add("--kubeconfig", metavar="FILE", help="default: KUBECONFIG, else ~/.kube/config")
        return self

    def with_name(self) -> Parser:
        self.add_argument("name", metavar="NAME", help="name of the HeliosDeployment")
        return self
