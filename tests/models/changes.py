"""Ways to spoil or vary a generated checkpoint, for the tests of what is read and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

SINGLE = "model.safetensors"


def change_json(file: Path, drop: tuple[str, ...] = (), **fields: object) -> None:
    """Sets and drops fields of a file that holds an object, or begins one."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({k: v for k, v in (content | fields).items() if k not in drop}))


def change_config(path: Path, drop: tuple[str, ...] = (), **fields: object) -> None:
    change_json(path / "config.json", drop, **fields)


def change_tensors(path: Path, changed: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Sets tensors, and drops those that are None. Returns all of them as they are now."""
    tensors = load_file(path / SINGLE) | dict(changed)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path / SINGLE, metadata={"format": "pt"})
    return kept


def rename_tensors(path: Path, names: Mapping[str, str]) -> None:
    """names: old -> new."""
    tensors = load_file(path / SINGLE)
    renamed = {names.get(name, name): tensor for name, tensor in tensors.items()}
    save_file(renamed, path / SINGLE, metadata={"format": "pt"})


def tensors_of(path: Path) -> dict[str, Tensor]:
    return load_file(path / SINGLE)


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header, and the bytes behind it."""
    content = file.read_bytes()
    [length] = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_header(
    file: Path, header: bytes | Mapping[str, Any], data: bytes, length: int | None = None
) -> None:
    """Puts a file together as a liar would. length: what the header claims to be long, None: as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
