"""What the kernels compute, in torch's float64 and as plainly as can be, on the weights as packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from helios_server.native.layers import Layer, Shape, Step
from helios_server.native.library import Library
from helios_server.native.matrix import Matrix
from torch import Tensor

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def packed_weight(weight: Tensor, fmt: str) -> Tensor:
    """The weights that a format leaves of [out, in]: float64."""
    if fmt in TORCH:
        return weight.to(TORCH[fmt]).double()
    if fmt == "int8":
        unit = weight.float().abs().amax(1, keepdim=True) / 127
        return (weight.float() / unit.clamp_min(1e-30)).round().double() * unit.double()
    groups = [_int4_group(group) for group in weight.float().split(32, dim=1)]
    return torch.cat(groups, dim=1)


def _int4_group(group: Tensor) -> Tensor:
    """[out, at most 32]: 15 units from the least to the largest, both kept as float16."""
    least, largest = group.amin(1, keepdim=True), group.amax(1, keepdim=True)
    minimum, unit = least.half().float(), ((largest - least) / 15).half().float()
    values = torch.where(unit > 0, (group - minimum) / unit, 0).round().clamp(0, 15)
    return (values * unit + minimum).double()


def rounds_rows(isa: str, fmt: str) -> bool:
    """Whether rows are rounded to the weights' format before they are multiplied."""
    return fmt == "bfloat16" and isa not in ("avx2", "avx512")


def product_error(x: Tensor, weight: Tensor, fmt: str, isa: str) -> Tensor:
    """How far a product may be from the exact one: [M, N].

    x: [M, K], weight: [N, K] as packed. A float32 sum of K terms errs by K roundings of its terms' sizes at
    most; tiles and pairs have it in bfloat16 first; int8 in 16-bit integers, whose sums are exact.
    """
    terms = x.double().abs() @ weight.abs().T
    k = x.shape[1]
    rounding = 2.0**-24
    if fmt == "int8":
        unit = x.double().abs().amax(1, keepdim=True) / min(2147483647 // (128 * k), 32512)
        return unit / 2 * weight.abs().sum(1)[None, :] * 1.001 + 8 * rounding * terms
    narrowed = 2.0**-8 if rounds_rows(isa, fmt) else 0.0
    return (k + 2) * rounding * terms * 1.01 + narrowed * terms


@dataclass
class Weights:
    """A layer as a checkpoint has it: float32 tensors, biases and q/k norms or None."""

    input_norm: Tensor
    post_norm: Tensor
    q_norm: Tensor | None
    k_norm: Tensor | None
    matrices: dict[str, tuple[Tensor, Tensor | None]]  # qkv, o, gate_up, down

    @classmethod
    def random(cls, shape: Shape, generator: torch.Generator, biases: bool, norms: bool) -> Weights:
        def normal(*sizes: int, scale: float = 1.0) -> Tensor:
            return torch.randn(*sizes, generator=generator) * scale

        mixed, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        sizes = {
            "qkv": (mixed + 2 * keys, shape.hidden),
            "o": (shape.hidden, mixed),
            "gate_up": (2 * shape.inner, shape.hidden),
            "down": (shape.hidden, shape.inner),
        }
        return cls(
            1 + normal(shape.hidden, scale=0.2),
            1 + normal(shape.hidden, scale=0.2),
            1 + normal(shape.head_dim, scale=0.2) if norms else None,
            1 + normal(shape.head_dim, scale=0.2) if norms else None,
            {
                name: (normal(*size, scale=size[1] ** -0.5), normal(size[0], scale=0.1) if biases else None)
                for name, size in sizes.items()
            },
        )

    def packed(self, kernels: Library, fmt: str) -> Layer:
        matrices: dict[str, Matrix] = {
            name: kernels.pack(weight, bias, fmt, gated=name == "gate_up")
            for name, (weight, bias) in self.matrices.items()
        }
        return Layer(
            input_norm=self.input_norm,
            post_norm=self.post_norm,
            q_norm=self.q_norm,
            k_norm=self.k_norm,
            qkv=matrices["qkv"],
            o=matrices["o"],
            gate_up=matrices["gate_up"],
            down=matrices["down"],
        )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def run_layer(shape: Shape, weights: Weights, fmt: str, hidden: Tensor, step: Step, slab: Tensor) -> Tensor:
    """hidden: [T, hidden] float64; writes into slab as the kernels do. Returns [T, hidden] float64."""

    def product(name: str, x: Tensor) -> Tensor:
        weight, bias = weights.matrices[name]
        y = x @ packed_weight(weight, fmt).T
        return y if bias is None else y + bias.double()

    line = product("qkv", rms_norm(hidden, weights.input_norm, shape.eps))
    q, k, v = line.split([shape.heads * shape.head_dim, *[shape.kv_heads * shape.head_dim] * 2], dim=1)
    q, k, v = (x.reshape(len(x), -1, shape.head_dim) for x in (q, k, v))
    if weights.q_norm is not None and weights.k_norm is not None:
        q, k = rms_norm(q, weights.q_norm, shape.eps), rms_norm(k, weights.k_norm, shape.eps)
    q, k = _rotate(q, step), _rotate(k, step)
    for t, slot in enumerate(step.slots.tolist()):
        page, offset = divmod(slot, shape.page_tokens)
        slab[page, 0, :, offset], slab[page, 1, :, offset] = stored(k[t], shape.kv), stored(v[t], shape.kv)
    mixed = torch.stack([_attend(shape, q[t], step, t, slab) for t in range(len(q))])
    hidden = hidden + product("o", mixed)
    gate, up = product("gate_up", rms_norm(hidden, weights.post_norm, shape.eps)).chunk(2, dim=1)
    return hidden + product("down", F.silu(gate) * up)


def stored(x: Tensor, kv: torch.dtype) -> Tensor:
    """x: [..., head_dim], as a slab of this dtype has it: int8 in 127th parts of the largest, and a float32
    behind them that says how much such a part is."""
    if kv != torch.int8:
        return x.to(kv)
    largest = x.float().abs().amax(-1, keepdim=True)
    return torch.cat(((x.float() * (127 / largest)).round().to(kv), (largest / 127).view(kv)), dim=-1)


def _read(held: Tensor, head_dim: int) -> Tensor:
    if held.dtype != torch.int8:
        return held.double()
    units = held[..., head_dim:].contiguous().view(torch.float32)
    return held[..., :head_dim].double() * units.double()


def _rotate(x: Tensor, step: Step) -> Tensor:
    cos, sin = (table[step.positions].double()[:, None] for table in (step.cos, step.sin))
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _attend(shape: Shape, q: Tensor, step: Step, t: int, slab: Tensor) -> Tensor:
    """q: [heads, head_dim]. Returns [heads * head_dim]."""
    context = int(step.contexts[t])
    pages = step.pages[int(step.table_rows[t])][: -(-context // shape.page_tokens)].long()
    held = slab[pages].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :context]
    kv = _read(held.contiguous(), shape.head_dim)
    grouped = q.reshape(shape.kv_heads, -1, shape.head_dim)
    scores = grouped @ kv[0].transpose(1, 2) * (shape.scale or shape.head_dim**-0.5)
    return (scores.softmax(-1) @ kv[1]).reshape(-1)
