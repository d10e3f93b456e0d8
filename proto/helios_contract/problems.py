"""What is wrong with something that a user wrote, in words that let its author put it right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """`field`: a path such as spec.slo.percentile or tasks[3].expect.regex, or FILE:LINE:COLUMN. `fix`: what
    to do."""

    field: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}; {self.fix}"
