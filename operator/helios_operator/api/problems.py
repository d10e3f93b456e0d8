"""All that is wrong with an object.

Raised by `api.validation` and `api.documents`; shown by the command line by line, and by the operator in a
condition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from helios_contract.problems import Problem


class Invalid(Exception):
    """An object, or a file of objects, that breaks rules. Its text has a line per problem.

    `admitted`: the object as it would be stored, where it keeps the CRD's rules and only cannot be rendered
    (a pod template, too long prompts), and else None. What serves already can be looked after by it.
    """

    def __init__(self, problems: Iterable[Problem], admitted: dict[str, Any] | None = None) -> None:
        self.problems = tuple(problems)
        self.admitted = admitted
        super().__init__("\n".join(str(problem) for problem in self.problems))
