"""What lies between token exit and the loop, step by step: heads, exits, kernels, batch.

Called by `run`. Each step is a pod of its own that gets the same bursts, everything else alike, so that the
ratio of two neighbours is what one thing is worth. Depth, precision and changes are read from the replays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from helios_contract.limits import Limits
from helios_server.engine.exit_mode import MOST_ROWS

from bench.loop.figures import tokens_between
from bench.loop.pods import NEVER, Fixed, address
from bench.loop.replay import Ask, Say, asking, replay
from bench.loop.trace import Texts, together
from bench.report import Claim, claim

TORCH, HEADS, EXITS, KERNELS, ROWS = "torch", "torch-with-heads", "torch-with-exits", "kernels", "all-rows"
_RATIOS = {
    "heads-cost": (HEADS, TORCH),
    "exits": (EXITS, HEADS),
    "kernels": (KERNELS, TORCH),
    "batch": (ROWS, KERNELS),
}
_WARM_UP = 8
Rates = Mapping[str, Sequence[float]]


async def rates(fixed: Fixed, texts: Texts, count: int, bursts: int, say: Say) -> Rates:
    """Tokens a second of each burst of `count` requests, by step."""
    found: dict[str, Sequence[float]] = {}
    for name, (limits, native) in _steps(fixed).items():
        async with fixed.serving(limits, native) as pod, asking(address(pod), fixed.subject.osl) as ask:
            found[name] = await saturated(ask, texts, count, bursts)
        say(f"{name}: {', '.join(f'{rate:.0f}' for rate in found[name])} tokens/s")
    return found


def _steps(fixed: Fixed) -> Mapping[str, tuple[Limits, bool]]:
    """Limits, and whether the kernels may compute."""
    full = fixed.subject.depths[0]
    return {
        TORCH: (fixed.depth(full, rows=MOST_ROWS), False),
        HEADS: (fixed.tokens(NEVER), True),
        EXITS: (fixed.tokens(fixed.threshold), True),
        KERNELS: (fixed.depth(full, rows=MOST_ROWS), True),
        ROWS: (fixed.depth(full), True),
    }


async def saturated(ask: Ask, texts: Texts, count: int, bursts: int) -> Sequence[float]:
    """Tokens a second of each burst, after a smaller one."""
    await _burst(ask, texts, min(count, _WARM_UP))
    return [await _burst(ask, texts, count) for _ in range(bursts)]


async def _burst(ask: Ask, texts: Texts, count: int) -> float:
    answered = await replay(together(texts, count), ask, count, lambda _: None)
    if errors := [each.stream.error for each in answered if each.stream.error]:
        raise RuntimeError(f"a request of a burst failed: {errors[0]}")
    start = min(each.stream.sent for each in answered)
    end = max(each.stream.ended for each in answered)
    return tokens_between(answered, start, end) / (end - start)


def claims(found: Rates) -> Iterator[Claim]:
    """Burst by burst."""
    for name, (over, under) in _RATIOS.items():
        pairs = zip(found[over], found[under], strict=True)
        yield claim(f"part-{name}", [above / below for above, below in pairs], "x")
