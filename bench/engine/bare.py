"""How fast products of one row read their weights, and nothing beside them: from memory, and from a cache,
where only the kernels' instructions bound them.

Used by `peers/helios.py`, in the process that runs the engine. What a step at batch 1 falls short of the
former is not the products' doing; where the former falls short of the read bandwidth, the latter says whether
instructions are why. It must not know of engines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from helios_server.native.library import Library
from helios_server.native.matrix import Matrix

_FEATURES = 1024
_CACHE = 768
"""Columns that the cores' second caches hold."""
_BLOCK = 4096
"""Columns of random numbers, which the larger matrix repeats."""
_SECONDS = 0.3
"""For each matrix; the fastest call counts, as for the read bandwidth."""


def bare(kernels: Library, fmt: str, blocks: int) -> Mapping[str, float]:
    """Bytes of weights a second, from memory and from a cache; what a call costs is in it.

    blocks: of 4 Mi weights, of which a processor's caches should not hold so many.
    """
    matrices = {"memory": _matrix(kernels, blocks * _BLOCK, fmt), "cache": _matrix(kernels, _CACHE, fmt)}
    return {place: matrix.nbytes / _seconds(kernels, matrix) for place, matrix in matrices.items()}


def _matrix(kernels: Library, columns: int, fmt: str) -> Matrix:
    block = torch.randn(min(columns, _BLOCK), _FEATURES, generator=torch.Generator().manual_seed(0))
    weights = block.repeat(columns // len(block), 1) * _FEATURES**-0.5
    return kernels.pack(weights, None, fmt)


def _seconds(kernels: Library, matrix: Matrix) -> float:
    """Of the fastest call."""
    row, least = torch.ones(1, _FEATURES), float("inf")
    end = time.perf_counter() + _SECONDS
    while (began := time.perf_counter()) < end:
        kernels.matmul(matrix, row)
        least = min(least, time.perf_counter() - began)
    return least
