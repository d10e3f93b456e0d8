"""Whether an instruction set computes what it should on this machine: some milliseconds when it is loaded.

Called by `library.py` before it trusts an instruction set. It catches a compiler's fault, and a processor
with instructions that nobody could test before; the tests hold the kernels to more. It must not decide what
happens then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from helios_server.native.layers import Layer, Shape, Step
from helios_server.native.matrix import FORMATS

if TYPE_CHECKING:
    from helios_server.native.library import Library

# Of the sum of a product's absolute terms, and of the largest value of a layer. bfloat16: tiles round every
# row to it; elsewhere rows are float32.
_PRODUCT = {"float16": 2.0**-16, "bfloat16": 2.0**-7, "int8": 2.0**-12, "int4": 2.0**-16}
_LAYER = {"float16": 2.0**-9, "bfloat16": 2.0**-5, "int8": 2.0**-8, "int4": 2.0**-9}
_INT8_KV = 2.0**-6  # a key that is rounded on both sides may fall apart by one step
# Nothing divides by a vector's or a tile's size; rows fill more than one tile.
_ROWS, _OUT, _IN = 19, 75, 83
_SHAPE = Shape(
    hidden=_IN, heads=6, kv_heads=2, head_dim=20, inner=37, eps=1e-5, page_tokens=5, kv=torch.float16
)


def difference(kernels: Library) -> str | None:
    """What the kernels compute wrongly, in a few words; None: nothing was found."""
    generator = torch.Generator().manual_seed(0)
    for fmt in FORMATS:
        if not _product_holds(kernels, fmt, generator):
            return f"{fmt} products"
        if not _layer_holds(kernels, fmt, generator):
            return f"{fmt} layers"
    return None if _layer_holds(kernels, "float16", generator, torch.int8) else "int8 keys and values"


def _product_holds(kernels: Library, fmt: str, generator: torch.Generator) -> bool:
    weight, x = _normal(generator, _OUT, _IN), _normal(generator, _ROWS, _IN)
    bias = _normal(generator, _OUT)
    matrix = kernels.pack(weight, bias, fmt)
    held = matrix.rows(torch.arange(_OUT)).double()
    if (held - weight).abs().max() > (2.0**-3 if fmt == "int4" else 2.0**-7) * weight.abs().max():
        return False
    exact, terms = x.double() @ held.T + bias, x.double().abs() @ held.abs().T + bias.abs()
    return all(
        bool(((kernels.matmul(matrix, x[:rows]) - exact[:rows]).abs() <= _PRODUCT[fmt] * terms[:rows]).all())
        for rows in (1, _ROWS)
    )


def _layer_holds(
    kernels: Library, fmt: str, generator: torch.Generator, kv: torch.dtype = torch.float16
) -> bool:
    """One layer on a prompt, and on one more token behind it."""
    s = replace(_SHAPE, kv=kv)
    mixed, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    sizes = {"qkv": (mixed + 2 * keys, s.hidden), "o": (s.hidden, mixed)}
    sizes |= {"gate_up": (2 * s.inner, s.hidden), "down": (s.hidden, s.inner)}
    matrices = {
        name: kernels.pack(_normal(generator, *size) * size[1] ** -0.5, None, fmt, gated=name == "gate_up")
        for name, size in sizes.items()
    }
    norms = [1 + _normal(generator, size) / 8 for size in (s.hidden, s.hidden, s.head_dim, s.head_dim)]
    input_norm, post_norm, q_norm, k_norm = norms
    layer = Layer(
        input_norm=input_norm, post_norm=post_norm, q_norm=q_norm, k_norm=k_norm,
        qkv=matrices["qkv"], o=matrices["o"], gate_up=matrices["gate_up"], down=matrices["down"],
    )  # fmt: skip
    held = {
        name: matrix.rows(torch.arange(matrix.out_features)).double() for name, matrix in matrices.items()
    }
    hidden, step = _normal(generator, _ROWS, s.hidden), _step(generator)
    exact = _layer(held, norms, hidden.double(), step, kv)
    nothing = -1 if kv == torch.int8 else torch.nan  # of such bytes the unit is NaN too
    slab = torch.full(s.slab(int(step.pages.max()) + 1), nothing, dtype=kv)
    got = hidden.clone()
    for first, stop in ((0, _ROWS - 1), (_ROWS - 1, _ROWS)):
        kernels.run_layers(s, [layer], got[first:stop], _part(step, first, stop), [slab])
    allowed = _LAYER[fmt] + (_INT8_KV if kv == torch.int8 else 0)
    return bool((got - exact).abs().max() <= allowed * exact.abs().max())


def _layer(
    held: dict[str, Tensor], norms: list[Tensor], hidden: Tensor, step: Step, kv: torch.dtype
) -> Tensor:
    s = _SHAPE
    line = _norm(hidden, norms[0]) @ held["qkv"].T
    q, k, v = line.split([s.heads * s.head_dim, *[s.kv_heads * s.head_dim] * 2], dim=1)
    q, k, v = (part.reshape(_ROWS, -1, s.head_dim).transpose(0, 1) for part in (q, k, v))
    q, k = _rotated(_norm(q, norms[2]), step), _rotated(_norm(k, norms[3]), step)
    k, v = (_kept(part, kv).repeat_interleave(s.heads // s.kv_heads, dim=0) for part in (k, v))
    scores = q @ k.transpose(1, 2) * s.head_dim**-0.5
    later = torch.ones(_ROWS, _ROWS).triu(1).bool()
    mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
    hidden = hidden + mixed.transpose(0, 1).reshape(_ROWS, -1) @ held["o"].T
    gate, up = (_norm(hidden, norms[1]) @ held["gate_up"].T).chunk(2, dim=1)
    return hidden + (F.silu(gate) * up) @ held["down"].T


def _kept(x: Tensor, kv: torch.dtype) -> Tensor:
    if kv != torch.int8:
        return x.to(kv).double()
    unit = x.abs().amax(-1, keepdim=True) / 127
    return (x / unit).round() * unit


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + _SHAPE.eps).sqrt() * weight


def _rotated(x: Tensor, step: Step) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * step.cos - b * step.sin, b * step.cos + a * step.sin), dim=-1)


def _step(generator: torch.Generator) -> Step:
    """A prompt of _ROWS tokens at the places 0, 1, ..."""
    page, places = _SHAPE.page_tokens, torch.arange(_ROWS)
    pages = torch.randperm(-(-_ROWS // page), generator=generator)
    angles = places[:, None] * 10 ** -torch.linspace(0, 3, _SHAPE.head_dim // 2)[None, :]
    return Step(
        places,
        pages[places // page] * page + places % page,
        torch.zeros(_ROWS, dtype=torch.int32),
        (places + 1).to(torch.int32),
        pages[None, :].to(torch.int32),
        angles.cos(),
        angles.sin(),
    )


def _part(step: Step, first: int, stop: int) -> Step:
    rows = slice(first, stop)
    return Step(
        step.positions[rows], step.slots[rows], step.table_rows[rows], step.contexts[rows],
        step.pages, step.cos, step.sin,
    )  # fmt: skip


def _normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=generator)
