"""What the demo says of depth and precision: what full depth holds as published and otherwise, and whether
fewer layers serve, or why not.

Pure; called by `act.py` with the options that the decisions weighed. The words of a verdict are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from helios_operator.api.types import Served
from helios_operator.decide.weigh.options import Option
from helios_operator.decide.weigh.select import describe


def told(options: Sequence[Option], active: Served) -> Iterator[str]:
    """A line for full depth in each precision, and one for each depth below it in the precision that serves.
    options: of all candidates, judged, the best first."""
    own = [option for option in options if option.contender.name == active.candidate]
    serves = next((option for option in own if _serves(option, active)), None)
    for option in sorted(own, key=lambda option: option.key):
        if option.is_full_depth:
            yield f"full depth, {option.precision}: {_in_full(option, serves)}"
    for option in sorted(own, key=lambda option: -option.layer_budget):
        if not option.is_full_depth and option.precision == active.precision:
            yield f"{option.layer_budget} layers, {option.precision}: {_below(option, serves, own)}"


def _serves(option: Option, active: Served) -> bool:
    return (option.layer_budget, option.precision) == (active.layer_budget, active.precision)


def _below(option: Option, serves: Option | None, ranked: Sequence[Option]) -> str:
    if option is serves:
        return f"serve. {describe(option)}"
    if not option.verdict.ok:
        return f"do not serve: {option.verdict.message}"
    if serves is None:
        return f"could serve but do not: {describe(option)}"
    if ranked.index(option) < ranked.index(serves):
        return f"are better by now but do not serve yet: {describe(option)}; {describe(serves)} does"
    return f"could serve but do not: {describe(option)}, no better than {describe(serves)}"


def _in_full(option: Option, serves: Option | None) -> str:
    if not option.performance:
        return option.verdict.message
    if option is serves:
        return f"{describe(option)}; it serves"
    return describe(option) if option.verdict.ok else f"{describe(option)}; {option.verdict.message}"
