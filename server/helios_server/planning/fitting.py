"""Makes the timing law's figures from steps that were timed.

Called by the profile. Every shape of a step says one sum; what a layer and a head take at each number of rows
follows from all of them by least squares. It must not read clocks, nor predict: `planning.timing` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from helios_contract.results import HeadCost, StepTimeFit

from helios_server.planning.timing import OWN_HEAD, StepPoint

_WHISPER = 1e-12
"""Of ridge: settles what the steps do not tell apart, such as step and head where each of them samples."""


def fit(points: Sequence[StepPoint]) -> StepTimeFit:
    """Non-negative least squares of the relative error over the measured shapes. More rows never take less,
    whatever the noise: what is sought is what each number of rows adds to the one before.

    ValueError: fewer than four points.
    """
    if len(points) < 4:
        raise ValueError(f"a timing fit needs at least 4 points, got {len(points)}")
    form = _Form(points)
    features = [form.features(point) for point in points]
    scale = [point.weight**0.5 / point.step_ns for point in points]
    design = [[value * s for value in row] for row, s in zip(features, scale, strict=True)]
    target = [point.step_ns * s for point, s in zip(points, scale, strict=True)]
    solution = non_negative_least_squares(design, target)
    residuals = sorted(
        abs(sum(c * v for c, v in zip(solution, row, strict=True)) / point.step_ns - 1)
        for row, point in zip(features, points, strict=True)
    )
    return form.law(solution, round(100 * residuals[min(len(residuals) - 1, int(0.95 * len(residuals)))]))


class _Form:
    """What is sought, in this order: the step; a token of context in a layer; a layer at the fewest rows, and
    what it takes more at each further number of rows; the same of the model's own head; then of each other
    kind what it takes beside that, and beside that for each row."""

    def __init__(self, points: Sequence[StepPoint]) -> None:
        self.rows = sorted({round(point.rows) for point in points})
        self.sampled = sorted({round(point.sampled) for point in points if point.sampled})
        self.kinds = sorted({point.head_kind for point in points} - {OWN_HEAD})

    def features(self, point: StepPoint) -> list[float]:
        """What the step has of each."""
        layer = [point.layers * share for share in _shares(point.rows, self.rows)]
        head = _shares(point.sampled, self.sampled) if point.sampled else [0.0] * len(self.sampled)
        row = [1.0, point.layers * point.kv_tokens, *layer, *head]
        for kind in self.kinds:
            row += [1.0, point.sampled] if kind == point.head_kind and point.sampled else [0.0, 0.0]
        return row

    def law(self, solution: Sequence[float], error_percent: int) -> StepTimeFit:
        step, kv_token, *rest = solution
        layer = [round(ns) for ns in accumulate(rest[: len(self.rows)])]
        steps_of_head = rest[len(self.rows) :][: len(self.sampled)]
        beside = rest[len(self.rows) + len(self.sampled) :]
        timed = [row for row in self.rows if self.sampled and row <= self.sampled[-1]]
        head = [
            round(sum(a * b for a, b in zip(steps_of_head, _shares(row, self.sampled), strict=True)))
            for row in timed
        ]
        base, per_row = _line(timed, head)
        heads = {OWN_HEAD: HeadCost(base, per_row, tuple(head))}
        for kind, more, more_per_row in zip(self.kinds, beside[::2], beside[1::2], strict=True):
            heads[kind] = HeadCost(base + round(more), per_row + round(more_per_row))
        layer_base, per_layer_row = _line(self.rows, layer)
        return StepTimeFit(
            step_ns=round(step),
            per_layer_ns=layer_base,
            per_layer_row_ns=per_layer_row,
            per_layer_kv_token_ns=round(kv_token),
            heads=heads,
            error_percent=error_percent,
            at_rows=tuple(self.rows),
            layer_at_ns=tuple(layer),
        )


def _shares(rows: float, at_rows: Sequence[int]) -> list[float]:
    """Of what each number of rows adds to the one before, how much so many rows have."""
    between = pairwise(at_rows)
    return [1.0, *(min(1.0, max(0.0, (rows - below) / (above - below))) for below, above in between)]


def _line(at_rows: Sequence[int], at_ns: Sequence[int]) -> tuple[int, int]:
    """Through the ends: at no rows, and for each."""
    if len(at_rows) < 2:
        return (at_ns[0], 0) if at_ns else (0, 0)
    per_row = (at_ns[-1] - at_ns[0]) / (at_rows[-1] - at_rows[0])
    return max(0, round(at_ns[0] - per_row * at_rows[0])), round(per_row)


def non_negative_least_squares(design: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """Lawson and Hanson's active set, on the normal equations; columns are scaled to unit length."""
    width = len(design[0])
    norms = [sum(row[j] ** 2 for row in design) ** 0.5 or 1.0 for j in range(width)]
    unit = [[row[j] / norms[j] for j in range(width)] for row in design]
    gram = [
        [sum(row[i] * row[j] for row in unit) + _WHISPER * (i == j) for j in range(width)]
        for i in range(width)
    ]
    moment = [sum(row[i] * t for row, t in zip(unit, target, strict=True)) for i in range(width)]
    solution, free = [0.0] * width, list[int]()
    for _ in range(3 * width):
        slope = {
            j: moment[j] - sum(g * x for g, x in zip(gram[j], solution, strict=True))
            for j in range(width)
            if j not in free
        }
        steepest = max(slope, key=lambda j: slope[j], default=None)
        if steepest is None or slope[steepest] <= 1e-13:
            break
        free.append(steepest)
        solution = _within(solution, free, gram, moment)
        free = [j for j in free if solution[j] > 0]
    return [value / norm for value, norm in zip(solution, norms, strict=True)]


def _within(
    solution: list[float], free: list[int], gram: Sequence[Sequence[float]], moment: Sequence[float]
) -> list[float]:
    """The best that is not negative with these free, reached from `solution`: which becomes negative on the
    way is left at zero."""
    free = list(free)
    while free:
        best = _solve([[gram[i][j] for j in free] for i in free], [moment[i] for i in free])
        wanted = dict(zip(free, best, strict=True))
        negative = [j for j in free if wanted[j] <= 0]
        if not negative:
            return [wanted.get(j, 0.0) for j in range(len(solution))]
        share = min(solution[j] / (solution[j] - wanted[j]) if solution[j] else 0.0 for j in negative)
        solution = [x + share * (wanted[j] - x) if j in wanted else 0.0 for j, x in enumerate(solution)]
        free = [j for j in free if j not in negative or solution[j] > 1e-15]
    return solution


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss with pivots, of a matrix that is symmetric and positive."""
    lines = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    width = len(lines)
    for i in range(width):
        pivot = max(range(i, width), key=lambda k: abs(lines[k][i]))
        lines[i], lines[pivot] = lines[pivot], lines[i]
        for k in range(i + 1, width):
            factor = lines[k][i] / lines[i][i]
            lines[k] = [a - factor * b for a, b in zip(lines[k], lines[i], strict=True)]
    found = [0.0] * width
    for i in reversed(range(width)):
        known = sum(lines[i][j] * found[j] for j in range(i + 1, width))
        found[i] = (lines[i][width] - known) / lines[i][i]
    return found
