"""Every option with its figures and its verdict, as `helios plan` and `helios why` show it.

Made from the options that `helios_operator.decide` weighs; nothing is weighed or read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from helios_operator.api.status import Served
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option

from helios_cli.output import columns, paragraph
from helios_cli.views import PUBLISHED

CHOSEN, SERVES = "chosen", "serves"


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


def table(options: Sequence[OptionView]) -> Iterator[str]:
    """The figures, and what speaks against each option that is not feasible."""
    shown = any(option.precision != PUBLISHED for option in options)
    held = ("PRECISION",) if shown else ()
    titles = ("CANDIDATE", "LAYERS", *held, "BATCH", "QUALITY %", "TOK/S", "E2E MS", "J/TOK", "VERDICT")
    yield columns(titles, [_row(option, shown) for option in options])
    against: dict[str, list[str]] = {}
    for option in options:
        if not option.feasible and option.message:
            against.setdefault(option.message, []).append(str(option))
    if against:
        yield ""
    yield from (paragraph(f"{', '.join(named)}: {message}", "  ") for message, named in against.items())


def _row(option: OptionView, shown: bool) -> list[object]:
    figures = option.numbers
    return [
        option.candidate,
        option.layers,
        *((option.precision,) if shown else ()),
        option.rows or None,
        _quality(figures),
        _rounded(figures.get("tokensPerSecond")),
        _rounded(figures.get("e2eMs")),
        _joules(figures.get("joulesPerMegatoken")),
        option.verdict,
    ]


def _quality(figures: Mapping[str, float]) -> str | None:
    """And the least that it is, as sure as the policy asks."""
    mean, low = figures.get("qualityPercent"), figures.get("qualityLowPercent")
    return None if mean is None or low is None else f"{mean:g} (>={low:g})"


def _rounded(figure: float | None) -> str | None:
    """To three digits: more are not known."""
    if figure is None:
        return None
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def _joules(per_megatoken: float | None) -> str | None:
    return None if per_megatoken is None else f"{per_megatoken / 1e6:.2g}"
