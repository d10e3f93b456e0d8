"""Where the time of our engine's steps goes, by watching the calls that a step consists of.

Used by `peers/helios.py` and `budgets.py`, in the process that runs the engine. What is watched is slower by
some microseconds a step; it is not timed otherwise meanwhile.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

_STEP, _RUN = "step", "run"
_After = Callable[[str, float, Any], None]
MODEL = ("layers", "lm head", "exit head")
KERNELS = (*MODEL, "choice")
"""Parts that are native where the engine is."""
_CALLS = (
    ("layers", "helios_server.models.backbone", "Backbone.run_layers"),
    ("lm head", "helios_server.models.backbone", "Backbone.choices"),
    *(
        ("exit head", "helios_server.exits.head", f"{kind}.apply")
        for kind in ("BareHead", "AffineHead", "MlpHead")
    ),
    ("choice", "helios_server.native.library", "Library.choose"),
    ("sampling", "helios_server.engine.runner", "choose"),
    ("scheduling", "helios_server.engine.scheduler", "Scheduler.plan"),
    (_RUN, "helios_server.engine.runner", "Runner.run"),
    (_STEP, "helios_server.engine.engine", "Engine.step"),
)
PARTS = (*KERNELS, "sampling", "scheduling", "preparation", "rest")
"""exit head: what is between the last layer and the LM head, the model's own norm at full depth; choice: the
pass over the logits that finds the best and its confidence; sampling: what else chooses a token; preparation:
laying out a step's rows, embeddings; rest: handing tokens out, telling."""


@contextmanager
def watched(rows: int) -> Iterator[list[Mapping[str, float]]]:
    """Seconds of each call of each step in which so many rows decoded and none did anything else."""
    steps: list[Mapping[str, float]] = []
    spent: dict[str, float] = {}
    alike = False

    def after(name: str, seconds: float, result: Any) -> None:
        nonlocal alike
        spent[name] = spent.get(name, 0.0) + seconds
        if name == "scheduling":
            alike = len(result.rows) == rows and all(row.count == 1 for row in result.rows)
        if name == _STEP:
            if alike:
                steps.append(dict(spent))
            spent.clear()
            alike = False

    with ExitStack() as patches:
        for name, module, path in _CALLS:
            target = f"{module}.{path}"
            patches.enter_context(patch(target, _timed(name, _found(module, path), after)))
        yield steps


def median_step(steps: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Seconds by part, each the median over the steps; `step` is the whole."""
    if not steps:
        raise RuntimeError("no step was watched in which all rows decode")
    parts = [_parts(step) for step in steps]
    return {name: statistics.median(step[name] for step in parts) for name in (*PARTS, _STEP)}


def _parts(step: Mapping[str, float]) -> Mapping[str, float]:
    told = {name: step.get(name, 0.0) for name in (*KERNELS, "sampling", "scheduling")}
    told["sampling"] -= told["choice"]
    run = step.get(_RUN, 0.0)
    preparation = run + told["scheduling"] - sum(told.values())
    rest = step[_STEP] - run - told["scheduling"]
    return told | {"preparation": preparation, "rest": rest, _STEP: step[_STEP]}


def _found(module: str, path: str) -> Callable[..., Any]:
    found: Any = __import__(module, fromlist=["_"])
    for name in path.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]


def _timed(
    name: str, call: Callable[..., Any], after: Callable[[str, float, Any], None]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        after(name, time.perf_counter() - began, result)
        return result

    return timed
