"""The CEL library behind two calls, so that another can take its place: compile a rule, ask whether it holds.

Called by `api.rules`. Rules keep to the part of CEL on which the libraries and the API server agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings


@dataclass(frozen=True)
class Outcome:
    """`error`: why the rule could not be evaluated, which counts as not holding; "" when it could."""

    holds: bool
    error: str = ""


def holds(rule: str, value: Any, old: Any = None) -> Outcome:
    """Whether `rule` is true with `self` bound to the value and `oldSelf` to the old one."""
    result = _compiled(rule).eval(data={"self": value, "oldSelf": old})
    if result.type() == cel.Type.BOOL:
        return Outcome(bool(result.value()))
    return Outcome(False, str(result.value()))


@cache
def _compiled(rule: str) -> Any:
    """RuntimeError when it does not compile: a rule is ours, so that is a bug."""
    return _environment().compile(rule)


@cache
def _environment() -> Any:
    variables = {"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])
