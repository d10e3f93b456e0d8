"""Pods that stay as they are: a depth in a precision, or exits of single tokens.

Called by `arms`, `parts` and `run`. Each is `helios serve` with a limits file, as the operator writes one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from helios_contract.limits import Limits
from helios_contract.serves import REFERENCE, SINGLE_TOKENS, Precision
from helios_server.engine.exit_mode import MOST_ROWS
from helios_server.models.cache import cache_root

from bench.frontier.front import Key, name
from bench.frontier.subject import Subject
from bench.serve.pod import Pod, limited

_QUEUE = 2000
NEVER = 2.0
"""A threshold that no confidence reaches: heads are asked, and no token leaves."""


@dataclass(frozen=True)
class Fixed:
    """What stays as it is under one limit. memory_mib: of a pod, 0 for the machine's; threshold: of single
    tokens' confidence; dtype: as all compute."""

    subject: Subject
    memory_mib: int
    threshold: float
    dtype: str

    @property
    def keys(self) -> list[Key]:
        """Every depth in every precision, full depth as published first."""
        return [
            (layers, precision) for layers in self.subject.depths for precision in self.subject.precisions
        ]

    @property
    def names(self) -> list[str]:
        """The same as arms are called."""
        return [name(key) for key in self.keys]

    def depth(self, layers: int, precision: Precision = REFERENCE, rows: int = 0) -> Limits:
        """rows: 0 for what fits."""
        limits = self.subject.limits(layers, precision, self.memory_mib)
        return replace(limits, max_queue_size=_QUEUE, max_batch_size=rows)

    def tokens(self, threshold: float) -> Limits:
        """Single-model token exit, in as many rows as it takes."""
        whole = self.depth(self.subject.depths[0], rows=MOST_ROWS)
        return replace(
            whole,
            exits_uri=self.subject.exits,
            exit_layers=self.subject.depths[1:],
            exit_mode=SINGLE_TOKENS,
            exit_threshold=threshold,
        )

    @asynccontextmanager
    async def serving(self, limits: Limits, native: bool = True) -> AsyncIterator[Pod]:
        """native: by the kernels, where the limits let them."""
        given = ("--dtype", self.dtype, "--volumes", str(cache_root()))
        async with limited(limits, *given, environment={} if native else {"HELIOS_NATIVE": "off"}) as pod:
            yield pod


def address(pod: Pod) -> str:
    """Of its gRPC door."""
    return f"127.0.0.1:{pod.ports['port']}"
