"""Attention of one step over the paged KV cache: decoding rows together, stretches of a prompt one by one.

Built by the runner for the rows that are alive in a segment of layers. A row's result must not depend on the
rows beside it, nor on what its pages held before: rows that share a multiplication share only zeros, and what
lies beyond a row's own tokens is read as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.engine.kv_pool import KvPool
from helios_server.models.block import Attend


def gather_tokens(device: torch.device) -> int:
    """Tokens of context, padding included, up to which rows are gathered together.

    On the CPU the copy then stays within the caches (measured: 1024 is 5 to 10 % faster than 4096); an
    accelerator wants few and large operations.
    """
    return 1024 if device.type == "cpu" else 16384


@dataclass(frozen=True)
class Stretch:
    """New tokens of one sequence in a step. first: index of the first one in the step's rows; count: tokens.

    context: tokens of the sequence after this stretch, its own included; pages: ids that hold them, no more.
    """

    first: int
    count: int
    context: int
    pages: Sequence[int]


class PagedAttention:
    """What `attend_for(layer)` needs, prepared once and used by every layer.

    slots: [T] int64, where new tokens go.
    """

    def __init__(self, pool: KvPool, slots: Tensor, stretches: Sequence[Stretch]) -> None:
        self._pool = pool
        self._slots = slots
        decoding = [stretch for stretch in stretches if stretch.count == 1]
        self._parts: list[_Group | _Prompt] = [
            *(
                _Group(pool, group)
                for group in _gather_groups(decoding, pool.page_tokens, gather_tokens(pool.device))
            ),
            *(_Prompt(pool, stretch) for stretch in stretches if stretch.count > 1),
        ]
        self._scratch = pool.buffer(max(part.pages.numel() for part in self._parts))

    def attend_for(self, layer: int) -> Attend:
        """The attention of one layer: stores its keys and values, then attends."""

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._pool.write(layer, self._slots, k, v)
            out = torch.empty_like(q)
            for part in self._parts:
                gathered = self._scratch[: part.pages.numel()]
                self._pool.read(layer, part.pages, gathered)
                part.attend(q, gathered, out)
            return out

        return attend


class _Group:
    """Decoding rows that attend together, each over its own pages, padded to the longest."""

    def __init__(self, pool: KvPool, stretches: Sequence[Stretch]) -> None:
        device = pool.device
        width = max(len(stretch.pages) for stretch in stretches)
        padded = [
            [*stretch.pages, *[stretch.pages[0]] * (width - len(stretch.pages))] for stretch in stretches
        ]
        self.pages = torch.tensor(padded, device=device).flatten()
        firsts = [stretch.first for stretch in stretches]
        adjacent = firsts == list(range(firsts[0], firsts[0] + len(firsts)))
        self._rows: slice | Tensor = (
            slice(firsts[0], firsts[-1] + 1) if adjacent else torch.tensor(firsts, device=device)
        )
        # On the CPU first: how many slots lie beyond must be known, and nobody shall wait for a device.
        contexts = torch.tensor([stretch.context for stretch in stretches])
        beyond = torch.arange(width * pool.page_tokens)[None, :] >= contexts[:, None]
        self._beyond = beyond.flatten().nonzero()[:, 0].to(device)
        self._mask = _mask(beyond.to(device), pool.dtype)[:, None, None, :]  # [B, 1, 1, width * page_tokens]

    def attend(self, q: Tensor, gathered: Tensor, out: Tensor) -> None:
        rows = len(self._mask)
        # The mask alone would not hide what is not finite: plus minus infinity, or times zero, it is NaN.
        gathered.flatten(0, 1).index_fill_(0, self._beyond, 0)
        kv = gathered.view(rows, -1, *gathered.shape[2:])  # [B, L, 2, kv_heads, head_dim]
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        # The query heads of one key head stand where tokens usually do: no head is copied for grouped
        # queries.
        grouped = q[self._rows].reshape(rows, k.shape[1], -1, q.shape[-1])
        mixed = F.scaled_dot_product_attention(grouped, k, v, attn_mask=self._mask)
        out[self._rows] = mixed.reshape(rows, -1, q.shape[-1])


class _Prompt:
    """A stretch of one prompt: causal over all of its sequence so far."""

    def __init__(self, pool: KvPool, stretch: Stretch) -> None:
        self.pages = torch.tensor(stretch.pages, device=pool.device)
        self._rows = slice(stretch.first, stretch.first + stretch.count)
        self._context = stretch.context
        self._mask = causal_mask(stretch.context, stretch.count, pool.dtype, pool.device)

    def attend(self, q: Tensor, gathered: Tensor, out: Tensor) -> None:
        kv = gathered.flatten(0, 1)[: self._context]  # [L, 2, kv_heads, head_dim]
        attend_to_all(q[self._rows], kv[:, 0], kv[:, 1], self._mask, out[self._rows])


def attend_to_all(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, out: Tensor) -> None:
    """Attention of q: [T, heads, head_dim] to k, v: [L, kv_heads, head_dim]; mask: [T, L]; fills `out`."""
    k, v = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
    grouped = q.reshape(len(q), k.shape[1], -1, q.shape[-1])
    mixed = out.view_as(grouped)
    for member in range(grouped.shape[2]):  # of the query heads that share a key head: no head is copied
        one = grouped[:, :, member].transpose(0, 1)[None]
        mixed[:, :, member] = F.scaled_dot_product_attention(one, k, v, attn_mask=mask)[0].transpose(0, 1)


def causal_mask(context: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[count, context]: what the last `count` of `context` tokens may attend to, as added to the scores."""
    own = torch.arange(context - count, context, device=device)
    return _mask(torch.arange(context, device=device)[None, :] > own[:, None], dtype)


def _mask(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention's scores: minus infinity where `hidden` is true."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)


def _gather_groups(stretches: Sequence[Stretch], page_tokens: int, most: int) -> list[list[Stretch]]:
    """Rows in order, cut so that a group gathers at most `most` tokens; a longer row stands alone."""
    groups: list[list[Stretch]] = []
    width = 0
    for stretch in stretches:
        widened = max(width, len(stretch.pages))
        if groups and (len(groups[-1]) + 1) * widened * page_tokens <= most:
            groups[-1].append(stretch)
            width = widened
        else:
            groups.append([stretch])
            width = len(stretch.pages)
    return groups
