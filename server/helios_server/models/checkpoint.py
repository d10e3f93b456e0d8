"""A checkpoint directory: `config.json` and safetensors, of which only the tensors asked for are read.

Called by `backbone.py` and by the audit, which streams layers that are not loaded. It reads headers when it
opens and tensors' bytes when asked; it must not keep tensors, nor touch a shard that nobody asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios_server.errors import CheckpointError
from helios_server.models.config import ModelConfig

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# Of config.json, what changes the function that the weights compute.
_ESSENTIALS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "vocab_size", "rms_norm_eps", "rope_theta", "rope_scaling",
    "rope_parameters", "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window",
    "use_sliding_window", "hidden_act",
)  # fmt: skip
_SAMPLES, _SAMPLE_BYTES = 16, 256
_COMPLETE = "Copy the model again, complete"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies. shape: elements per axis; start, nbytes: bytes, start counted from the file's
    beginning."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Checkpoint:
    """One model on disk. `bytes_read` counts the tensor bytes read so far."""

    def __init__(self, path: Path, raw_config: dict[str, Any], shard_of: dict[str, str]) -> None:
        self.path = path
        self.raw_config = raw_config
        self.config = ModelConfig.from_hf(raw_config)
        self.bytes_read = 0
        self._shard_of = shard_of
        self._headers: dict[str, dict[str, TensorEntry]] = {}

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """Opens a directory; reads no tensor. Raises CheckpointError or UnsupportedModelError."""
        path = Path(path)
        if not path.is_dir():
            raise CheckpointError(str(path), "no such checkpoint directory", "Check the model's uri")
        return cls(path, _read_json(path / "config.json"), _find_shards(path))

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that the checkpoint claims to hold."""
        return tuple(self._shard_of)

    def tensor(self, name: str) -> Tensor:
        """Reads one tensor, as stored, on the CPU."""
        entry = self.entry(name)
        data = torch.empty(entry.nbytes, dtype=torch.uint8)
        _read_exactly(entry, data)
        self.bytes_read += entry.nbytes
        return data.view(_DTYPES[entry.dtype]).reshape(entry.shape)

    def layer_tensors(self, layer: int) -> dict[str, Tensor]:
        """Reads all tensors of one decoder layer, by their name within the layer."""
        prefix = f"model.layers.{layer}."
        names = [name for name in self._shard_of if name.startswith(prefix) and not name.endswith("inv_freq")]
        if not names:
            raise CheckpointError(str(self.path), f"holds no tensors of layer {layer}", _COMPLETE)
        return {name.removeprefix(prefix): self.tensor(name) for name in names}

    def entry(self, name: str) -> TensorEntry:
        """Where a tensor lies; opens its shard's header on first use."""
        if name not in self._shard_of:
            raise CheckpointError(str(self.path), f"tensor '{name}' is missing", _COMPLETE)
        shard = self._shard_of[name]
        if shard not in self._headers:
            self._headers[shard] = read_header(self.path / shard)
        if name not in self._headers[shard]:
            raise CheckpointError(
                str(self.path / shard), f"tensor '{name}' is missing from this file", _COMPLETE
            )
        return self._headers[shard][name]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the function computed: sha256 over config, tensor shapes and a strided sample of
        their bytes."""
        essentials = {key: self.raw_config[key] for key in _ESSENTIALS if key in self.raw_config}
        digest = hashlib.sha256(json.dumps(essentials, sort_keys=True).encode())
        for name in sorted(self._shard_of):
            entry = self.entry(name)
            digest.update(f"{name}|{entry.shape}|{entry.dtype}".encode())
            digest.update(_sample(entry))
        return digest.hexdigest()


def read_header(file: Path) -> dict[str, TensorEntry]:
    """Reads and checks a safetensors header: every tensor it promises must lie within the file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            length = struct.unpack("<Q", handle.read(8))[0]
            if length > size:
                raise ValueError("header longer than the file")
            header = json.loads(handle.read(length))
    except FileNotFoundError:
        raise CheckpointError(str(file), "file is missing", _COMPLETE) from None
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(
            str(file), f"is not a readable safetensors file ({error})", _COMPLETE
        ) from error
    base = 8 + length
    entries = {
        name: _entry(file, name, item, base) for name, item in header.items() if name != "__metadata__"
    }
    if any(entry.start + entry.nbytes > size for entry in entries.values()):
        raise CheckpointError(str(file), f"is truncated at {size} bytes", _COMPLETE)
    return entries


def _entry(file: Path, name: str, item: dict[str, Any], base: int) -> TensorEntry:
    if item["dtype"] not in _DTYPES:
        raise CheckpointError(
            str(file), f"tensor '{name}' has dtype {item['dtype']}", "Convert it to a float dtype"
        )
    start, end = item["data_offsets"]
    return TensorEntry(file, item["dtype"], tuple(item["shape"]), base + start, end - start)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            str(file), "file is missing", "Give a Hugging Face checkpoint directory"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(str(file), f"cannot be read as JSON ({error})", _COMPLETE) from error
    if not isinstance(content, dict):
        raise CheckpointError(str(file), "does not hold a JSON object", _COMPLETE)
    return content


def _find_shards(path: Path) -> dict[str, str]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return {name: single.name for name in read_header(single)}
    if index.is_file():
        return dict(_read_json(index).get("weight_map", {}))
    raise CheckpointError(
        str(path),
        "holds neither model.safetensors nor model.safetensors.index.json",
        "Save the model as safetensors",
    )


def _read_exactly(entry: TensorEntry, data: Tensor) -> None:
    if entry.nbytes == 0:
        return
    try:
        with entry.file.open("rb") as handle:
            handle.seek(entry.start)
            got = handle.readinto(memoryview(data.numpy().data))
    except OSError as error:
        raise CheckpointError(str(entry.file), f"cannot be read ({error})", _COMPLETE) from error
    if got != entry.nbytes:
        raise CheckpointError(str(entry.file), "is truncated", _COMPLETE)


def _sample(entry: TensorEntry) -> bytes:
    stride = max(entry.nbytes // _SAMPLES, 1)
    descriptor = os.open(entry.file, os.O_RDONLY)
    try:
        pieces = []
        for offset in range(0, entry.nbytes, stride):
            pieces.append(
                os.pread(descriptor, min(_SAMPLE_BYTES, entry.nbytes - offset), entry.start + offset)
            )
        return b"".join(pieces)
    finally:
        os.close(descriptor)
