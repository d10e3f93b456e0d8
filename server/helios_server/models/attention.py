"""Torch's path of attention over paged keys and values: decoding rows together, stretches of a prompt one by
one.

Made by `step.py` for the rows that are alive in a segment of layers. A row's result must not depend on the
rows beside it, nor on what its pages held before: rows that share a multiplication share only zeros, and what
lies beyond a row's own tokens is read as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.models.kv_units import with_units, without_units
from helios_server.models.rows import Rows, Stretch
from helios_server.models.slabs import SlabLayout


def gather_tokens(device: torch.device) -> int:
    """Tokens of context, padding included, up to which rows are gathered together.

    On the CPU the copy then stays within the caches (measured: 1024 is 5 to 10 % faster than 4096); an
    accelerator wants few and large operations.
    """
    return 1024 if device.type == "cpu" else 16384


class Places:
    """Where new tokens' keys and values go, in any layer."""

    def __init__(self, rows: Rows, layout: SlabLayout) -> None:
        self._layout = layout
        self._places = _places(torch.from_numpy(rows.slots), layout)

    def store(self, slab: Tensor, k: Tensor, v: Tensor) -> None:
        """k, v: [T, kv_heads, head_dim], in a layer's slab."""
        layout = self._layout
        new = torch.stack((k, v), dim=1).view(-1, layout.head_dim)
        new = with_units(new, layout.kept) if layout.has_units else new
        slab.view(-1, layout.width).index_copy_(0, self._places, new)


class PagedAttention:
    """Prepared once, and used by every layer."""

    def __init__(self, rows: Rows, layout: SlabLayout) -> None:
        self._layout = layout
        self._places = Places(rows, layout)
        indexed = list(zip(_offsets(rows.stretches), rows.stretches, strict=True))
        decoding = [(first, stretch) for first, stretch in indexed if stretch.count == 1]
        self._parts: list[_Group | _Prompt] = [
            *(_Group(group, layout) for group in _gather_groups(decoding, layout)),
            *(_Prompt(first, stretch, layout) for first, stretch in indexed if stretch.count > 1),
        ]
        most = max(part.heads.numel() for part in self._parts)
        shape = (most, layout.page_tokens, layout.width)
        self._scratch = torch.empty(shape, dtype=layout.dtype, device=layout.device)

    def attend(self, slab: Tensor, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Stores the new tokens' k, v: [T, kv_heads, head_dim] in a layer's slab, then attends from q: [T,
        heads, head_dim] to so many tokens as the window is, or to all. Returns the shape of q."""
        layout = self._layout
        self._places.store(slab, k, v)
        pages = slab.view(-1, layout.page_tokens, layout.width)
        out = torch.empty_like(q)
        for part in self._parts:
            gathered = self._scratch[: part.heads.numel()]
            torch.index_select(pages, 0, part.heads.flatten(), out=gathered)
            if layout.has_units:
                gathered = without_units(gathered, layout.kept, layout.read)
            part.attend(q, gathered, out, window)
        return out


class _Group:
    """Decoding rows that attend together, each over its own pages, padded to the longest."""

    def __init__(self, group: Sequence[tuple[int, Stretch]], layout: SlabLayout) -> None:
        device = layout.device
        held = [_pages(stretch, layout) for _, stretch in group]
        width = max(map(len, held))
        padded = torch.tensor([[*pages, *[pages[0]] * (width - len(pages))] for pages in held])
        self.heads = _heads(padded, layout)  # [2, B, kv_heads, width]
        firsts = [first for first, _ in group]
        adjacent = firsts == list(range(firsts[0], firsts[0] + len(firsts)))
        self._rows: slice | Tensor = (
            slice(firsts[0], firsts[-1] + 1) if adjacent else torch.tensor(firsts, device=device)
        )
        # On the CPU first: how many slots lie beyond must be known, and nobody shall wait for a device.
        contexts = torch.tensor([stretch.context for _, stretch in group])
        length = width * layout.page_tokens
        beyond = torch.arange(length)[None, :] >= contexts[:, None]
        of_heads = beyond[None, :, None, :].expand(2, len(group), layout.kv_heads, length)
        self._beyond = of_heads.flatten().nonzero()[:, 0].to(device)
        self._count = len(group)
        self._masks = _Masks(contexts[:, None, None, None] - 1, length, layout)  # [B, 1, 1, length]

    def attend(self, q: Tensor, gathered: Tensor, out: Tensor, window: int | None) -> None:
        # The mask alone would not hide what is not finite: plus minus infinity, or times zero, it is NaN.
        gathered.flatten(0, 1).index_fill_(0, self._beyond, 0)
        k, v = gathered.view(*self.heads.shape[:3], -1, q.shape[-1])  # [B, kv_heads, length, head_dim] each
        rows = self._count
        # The query heads of one key head stand where tokens usually do: no head is copied for grouped
        # queries.
        grouped = q[self._rows].reshape(rows, k.shape[1], -1, q.shape[-1])
        mixed = F.scaled_dot_product_attention(grouped, k, v, attn_mask=self._masks.of(window))
        out[self._rows] = mixed.reshape(rows, -1, q.shape[-1])


class _Prompt:
    """A stretch of one prompt: causal over all of its sequence so far."""

    def __init__(self, first: int, stretch: Stretch, layout: SlabLayout) -> None:
        self.heads = _heads(torch.tensor(_pages(stretch, layout)), layout)  # [2, kv_heads, width]
        self._rows = slice(first, first + stretch.count)
        self._context = stretch.context
        own = torch.arange(stretch.start, stretch.context)
        self._masks = _Masks(own[:, None], stretch.context, layout)  # [count, context]

    def attend(self, q: Tensor, gathered: Tensor, out: Tensor, window: int | None) -> None:
        kv = gathered.view(*self.heads.shape[:2], -1, q.shape[-1])[:, None, :, : self._context]
        k, v = kv  # [1, kv_heads, context, head_dim] each
        q = q[self._rows]
        grouped = q.reshape(len(q), k.shape[1], -1, q.shape[-1])
        mixed = out[self._rows].view_as(grouped)
        for member in range(grouped.shape[2]):  # of the query heads that share a key head: no head is copied
            one = grouped[:, :, member].transpose(0, 1)[None]
            attended = F.scaled_dot_product_attention(one, k, v, attn_mask=self._masks.of(window))
            mixed[:, :, member] = attended[0].transpose(0, 1)


class _Masks:
    """What is added to attention's scores, made once for every window that layers have: minus infinity for
    what comes after a token, and for what is older than the window.

    own: [..., 1], the place of each token that attends; length: of what there is to attend to, in tokens.
    """

    def __init__(self, own: Tensor, length: int, layout: SlabLayout) -> None:
        self._own = own.to(layout.device)
        self._places = torch.arange(length, device=layout.device)
        self._dtype = layout.read
        self._made: dict[int | None, Tensor] = {}

    def of(self, window: int | None) -> Tensor:
        """[..., length]. window: tokens, the one that attends included; None: all."""
        if window not in self._made:
            hidden = self._places > self._own
            if window is not None:
                hidden |= self._places <= self._own - window
            scores = torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device)
            self._made[window] = scores.masked_fill_(hidden, -torch.inf)
        return self._made[window]


def _pages(stretch: Stretch, layout: SlabLayout) -> Sequence[int]:
    """Those that hold its tokens, no more."""
    return stretch.pages[: -(-stretch.context // layout.page_tokens)]


def _heads(pages: Tensor, layout: SlabLayout) -> Tensor:
    """pages: [..., width]. Returns [2, ..., kv_heads, width]: which [page_tokens, width] of a slab, as
    they lie one after the other, hold the keys, then the values, of each head."""
    sides = torch.arange(2).view(2, *[1] * (pages.dim() + 1))
    heads = torch.arange(layout.kv_heads)[:, None]
    return ((pages.unsqueeze(-2) * 2 + sides) * layout.kv_heads + heads).to(layout.device)


def _places(slots: Tensor, layout: SlabLayout) -> Tensor:
    """slots: [T]. Returns [T * 2 * kv_heads]: which [width] of a slab, as they lie one after the other, a
    token's keys and values go to."""
    pages, offsets = slots // layout.page_tokens, slots % layout.page_tokens
    of_heads = pages[:, None] * 2 * layout.kv_heads + torch.arange(2 * layout.kv_heads)
    return (of_heads * layout.page_tokens + offsets[:, None]).flatten().to(layout.device)


def _offsets(stretches: Sequence[Stretch]) -> list[int]:
    offsets, total = [], 0
    for stretch in stretches:
        offsets.append(total)
        total += stretch.count
    return offsets


def _gather_groups(
    decoding: Sequence[tuple[int, Stretch]], layout: SlabLayout
) -> list[list[tuple[int, Stretch]]]:
    """Rows in order, cut so that a group gathers at most so many tokens; a longer row stands alone."""
    most, groups, width = gather_tokens(layout.device), list[list[tuple[int, Stretch]]](), 0
    for row in decoding:
        pages = len(_pages(row[1], layout))
        widened = max(width, pages)
        if groups and (len(groups[-1]) + 1) * widened * layout.page_tokens <= most:
            groups[-1].append(row)
            width = widened
        else:
            groups.append([row])
            width = pages
    return groups
