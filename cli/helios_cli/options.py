"""Every option with its figures and its verdict, as `helios plan` and `helios why` show it.

Made from the options that `helios_operator.decide` weighs; nothing is weighed or read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from helios_operator.api.status import Served
from helios_operator.api.types import Objective
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option

from helios_cli.output import columns, paragraph
from helios_cli.views import PUBLISHED

CHOSEN, SERVES = "chosen", "serves"
_ORDERED_BY = {
    Objective.THROUGHPUT: "the lower bound of TOK/S (>=)",
    Objective.LATENCY: "LATENCY MS",
    Objective.ENERGY: "J/TOK",
    Objective.QUALITY: "the lower bound of QUALITY % (>=)",
}
"""As `select.value` compares them."""


@dataclass(frozen=True)
class OptionView:
    """A candidate at a depth in layers, its weights/keys and values held in some precision. `numbers`: the
    prediction, with the unit in each name; `standing`: chosen, or serves, or neither."""

    candidate: str
    layers: int
    precision: str
    rows: int
    feasible: bool
    reason: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)
    standing: str = ""

    @classmethod
    def of(cls, option: Option, active: Served | None = None) -> OptionView:
        """`active`: of what serves, it says how many rows there are."""
        verdict, is_active = option.verdict, serves(option, active)
        rows = active.max_batch_size if active and is_active else option.max_batch_size
        return cls(
            candidate=option.contender.name,
            layers=option.layer_budget,
            precision=str(option.precision),
            rows=rows,
            feasible=verdict.ok,
            reason=verdict.reason,
            message=verdict.message,
            numbers=select.numbers(option) | {"maxBatchSize": rows},
            standing=SERVES if is_active else "",
        )

    @property
    def verdict(self) -> str:
        found = "feasible" if self.feasible else self.reason
        if not self.standing:
            return found
        return self.standing if self.feasible else f"{self.standing}, {found}"

    def __str__(self) -> str:
        held = "" if self.precision == PUBLISHED else f" {self.precision}"
        return f"{self.candidate}@{self.layers}{held}"


def serves(option: Option, active: Served | None) -> bool:
    """Whether it is what serves now."""
    return active is not None and (active.candidate, active.layer_budget, active.precision) == (
        option.contender.name,
        option.layer_budget,
        option.precision,
    )


def order(objective: str) -> str:
    """What the table is ordered by, in its own words. objective: slo.optimizationType."""
    return f"the feasible first, then by {_ORDERED_BY[Objective(objective)]}"


def table(options: Sequence[OptionView], objective: str) -> Iterator[str]:
    """The figures, and what speaks against each option that is not feasible."""
    titles, cells = zip(*_columns(options, objective), strict=True)
    yield columns(titles, list(zip(*cells, strict=True)))
    against: dict[str, list[str]] = {}
    for option in options:
        if not option.feasible and option.message:
            against.setdefault(option.message, []).append(str(option))
    if against:
        yield ""
    yield from (paragraph(f"{', '.join(named)}: {message}", "  ") for message, named in against.items())


def _columns(options: Sequence[OptionView], objective: str) -> Iterator[tuple[str, list[object]]]:
    """Title and cells. Without what is not compared: the bound of the speed, the latency of the objective;
    and without joules that nobody measured."""
    figures = [option.numbers for option in options]
    yield "CANDIDATE", [option.candidate for option in options]
    yield "LAYERS", [option.layers for option in options]
    if any(option.precision != PUBLISHED for option in options):
        yield "PRECISION", [option.precision for option in options]
    yield "BATCH", [option.rows or None for option in options]
    yield "QUALITY %", [_bounded(f.get("qualityPercent"), f.get("qualityLowPercent")) for f in figures]
    low = "tokensPerSecondLow" if objective == Objective.THROUGHPUT else ""
    yield "TOK/S", [_bounded(f.get("tokensPerSecond"), f.get(low)) for f in figures]
    yield "E2E MS", [_rounded(f.get("e2eMs")) for f in figures]
    if objective == Objective.LATENCY:
        yield "LATENCY MS", [_rounded(f.get("latencyMs")) for f in figures]
    if objective == Objective.ENERGY or any("joulesPerMegatoken" in f for f in figures):
        yield "J/TOK", [_joules(f.get("joulesPerMegatoken")) for f in figures]
    yield "VERDICT", [option.verdict for option in options]


def _bounded(mean: float | None, low: float | None) -> str | None:
    """And the least that it is, as sure as the policy asks, where that is known or asked."""
    return _rounded(mean) if mean is None or low is None else f"{_rounded(mean)} (>={_rounded(low)})"


def _rounded(figure: float | None) -> str | None:
    """To three digits: more are not known."""
    if figure is None:
        return None
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def _joules(per_megatoken: float | None) -> str | None:
    return None if per_megatoken is None else f"{per_megatoken / 1e6:.2g}"
