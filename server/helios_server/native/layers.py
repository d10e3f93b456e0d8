"""What `Library.run_layers` reads: the shape of a model, its layers, one step's tokens."""

from __future__ import annotations

from ctypes import addressof
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from helios_server.native.interface import TYPES, CLayer, CShape, CStep
from helios_server.native.matrix import Matrix

FLOATS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
KV_DTYPES = FLOATS | {torch.int8: "int8"}
UNIT_BYTES = 4
"""Of the float32 behind the elements of a head's key or value, where these have 8 bits."""


@dataclass(frozen=True)
class Shape:
    """Sizes that all layers of a model share. hidden, inner: features; head_dim: features of a head, even;
    page_tokens: tokens of a page.

    kv: dtype of the slabs, in which an int8 key or value has its unit, a float32, behind its elements; scale:
    of attention's scores, None: head_dim ** -0.5.
    """

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    eps: float
    page_tokens: int
    kv: torch.dtype
    scale: float | None = None
    c: CShape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError where no kernel can have this shape."""
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"head_dim: {self.head_dim} is not an even number above 0")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads: {self.heads} is no multiple of kv_heads, {self.kv_heads}")
        if self.kv not in KV_DTYPES:
            raise ValueError(f"kv: {self.kv} is none of {', '.join(map(str, KV_DTYPES))}")
        scale = self.head_dim**-0.5 if self.scale is None else self.scale
        sizes = (self.hidden, self.heads, self.kv_heads, self.head_dim, self.inner, self.page_tokens)
        c = CShape(*sizes, TYPES.index(KV_DTYPES[self.kv]), self.eps, scale)
        object.__setattr__(self, "c", c)

    def slab(self, pages: int) -> tuple[int, ...]:
        """The shape of a layer's slab; 2: keys, then values."""
        width = self.head_dim + (UNIT_BYTES if self.kv == torch.int8 else 0)
        return (pages, 2, self.kv_heads, self.page_tokens, width)


class Layer:
    """A decoder layer's matrices and norms. Norms: float32, [hidden]; q_norm, k_norm: [head_dim], both or
    neither."""

    __slots__ = ("_kept", "address", "c", "nbytes")

    def __init__(
        self,
        *,
        input_norm: Tensor,
        post_norm: Tensor,
        qkv: Matrix,
        o: Matrix,
        gate_up: Matrix,
        down: Matrix,
        q_norm: Tensor | None = None,
        k_norm: Tensor | None = None,
    ) -> None:
        norms = [
            None if norm is None else norm.to(torch.float32).contiguous()
            for norm in (input_norm, post_norm, q_norm, k_norm)
        ]
        matrices = (qkv, o, gate_up, down)
        self._kept = (norms, matrices)  # the struct below holds bare addresses of them
        pointers = [None if norm is None else norm.data_ptr() for norm in norms]
        self.c = CLayer(*pointers, *(matrix.pointer for matrix in matrices))
        self.address = addressof(self.c)
        own = sum(4 * norm.numel() for norm in norms if norm is not None)
        self.nbytes = own + sum(matrix.nbytes for matrix in matrices)


@dataclass(frozen=True)
class Step:
    """The tokens of one step: arrays on the CPU, contiguous, that the caller may keep and fill anew.

    positions, slots: [T] int64, a slot is page * page_tokens + offset; table_rows: [T] int32, a token's row
    of `pages`; contexts: [T] int32, tokens that it attends to, itself included; pages: [B, width] int32, page
    ids; cos, sin: [positions, head_dim / 2] float32. Tokens of one sequence stand in order.
    """

    positions: Tensor
    slots: Tensor
    table_rows: Tensor
    contexts: Tensor
    pages: Tensor
    cos: Tensor
    sin: Tensor

    def check(self, shape: Shape) -> int:
        """The number of tokens. Raises ValueError, naming the array that is not as said above."""
        sizes = (self.c.rope_rows, shape.head_dim // 2)
        check_tensor("cos", self.cos, torch.float32, sizes)
        check_tensor("sin", self.sin, torch.float32, sizes)
        tokens: int = self.c.tokens
        return tokens

    @cached_property
    def c(self) -> CStep:
        """As the kernels read it, for as long as the arrays persist. Raises ValueError as `check` does."""
        tokens = len(self.positions)
        for name, tensor, dtype, sizes in (
            ("positions", self.positions, torch.int64, (tokens,)),
            ("slots", self.slots, torch.int64, (tokens,)),
            ("table_rows", self.table_rows, torch.int32, (tokens,)),
            ("contexts", self.contexts, torch.int32, (tokens,)),
            ("pages", self.pages, torch.int32, tuple(self.pages.shape[:2])),
        ):
            check_tensor(name, tensor, dtype, sizes)
        return CStep(
            tokens,
            self.positions.data_ptr(), self.slots.data_ptr(), self.table_rows.data_ptr(),
            self.contexts.data_ptr(), self.pages.data_ptr(), self.pages.shape[0], self.pages.shape[1],
            self.cos.data_ptr(), self.sin.data_ptr(), len(self.cos),
        )  # fmt: skip


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Raises ValueError unless it is one that the kernels can read by its address."""
    if tensor.dtype == dtype and tensor.shape == sizes and tensor.is_contiguous() and tensor.is_cpu:
        return
    if tensor.device.type != "cpu":
        raise ValueError(f"{name}: is on {tensor.device}, must be on the CPU")
    found = f"{tensor.dtype} {list(tensor.shape)}" + ("" if tensor.is_contiguous() else ", not contiguous")
    raise ValueError(f"{name}: is {found}, must be {dtype} {list(sizes)}, contiguous")
