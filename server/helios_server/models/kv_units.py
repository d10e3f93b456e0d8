"""Keys and values of 8 bits with a unit each, as they lie in slabs: how torch's path writes and reads them.

Called by `attention.py`; the native kernels read and write the same bytes. A unit belongs to one token and
one head: a key is what it is, whoever lies beside it. It must not know pages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helios_server.native.layers import UNIT_BYTES

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_LEAST = 1e-30
"""Of a row's largest element: below, all of it is zero."""


def with_units(x: Tensor, kept: torch.dtype) -> Tensor:
    """x: [N, head_dim], floats. Returns [N, head_dim + UNIT_BYTES] int8; a row that is not finite has a unit
    that is not."""
    wide, most = x.float(), _LARGEST[kept]
    top = wide.abs().amax(1, keepdim=True)
    useful = torch.where(top < _LEAST, 0, top)
    elements = wide * torch.where(useful > 0, most / useful, 0)
    if kept == torch.int8:
        elements = elements.round()
    units = (useful / most).float()
    return torch.cat((elements.clamp(-most, most).to(kept).view(torch.int8), units.view(torch.int8)), dim=1)


def without_units(stored: Tensor, kept: torch.dtype, read: torch.dtype) -> Tensor:
    """stored: [..., head_dim + UNIT_BYTES] int8. Returns [..., head_dim] in `read`."""
    elements, units = stored.split((stored.shape[-1] - UNIT_BYTES, UNIT_BYTES), dim=-1)
    exact = torch.promote_types(read, torch.float32)
    wide_units = units.contiguous().view(torch.float32).to(exact)
    wide: Tensor = elements.contiguous().view(kept).to(exact) * wide_units
    return wide.to(read)
