"""What is wrong with an object, in words that let its author put it right.

Raised by `api.validation` and `api.documents`; shown by the command line by line, and by the operator in a
condition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """`field`: a path such as spec.slo.percentile, or FILE:LINE:COLUMN. `fix`: what to do."""

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.fix}"


class Invalid(Exception):
    """An object, or a file of objects, that breaks rules. Its text has a line per problem.

    `admitted`: the object as it would be stored, where it keeps the CRD's rules and only cannot be rendered
    (a pod template, too long prompts), and else None. What serves already can be looked after by it.
    """

    def __init__(self, problems: Iterable[Problem], admitted: dict[str, Any] | None = None) -> None:
        self.problems = tuple(problems)
        self.admitted = admitted
        super().__init__("\n".join(str(problem) for problem in self.problems))
