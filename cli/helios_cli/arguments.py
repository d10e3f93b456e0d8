"""Arguments that several verbs share, and a parser whose complaints look like every other error of the
command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from helios_operator.errors import OperatorError

OUTPUTS = ("table", "json", "yaml")


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its own usage: the command shows one line."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"helios {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise OperatorError("arguments", message, f"see `{self.prog} --help`")

    def with_output(self) -> Parser:
        self.add_argument(
            "-o", "--output", choices=OUTPUTS, default="table", help="how to print (default: table)"
        )
        return self

    def with_state(self) -> Parser:
        self.add_argument(
            "--state", type=Path, metavar="DIR", help="the state folder of `helios up` (default: by name)"
        )
        return self

    def with_name(self) -> Parser:
        self.add_argument("name", metavar="NAME", help="of the HeliosDeployment")
        return self
