"""A checkpoint directory: `config.json` and safetensors, of which only the tensors asked for are read.

Called by `backbone.py` and by the audit, which streams layers that are not loaded. It reads and checks all
headers when it opens, and tensors' bytes when asked; it must not keep tensors. Tensors go by the names of
transformers' causal model, whatever the files call them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios_server.errors import CheckpointError
from helios_server.models.config import ModelConfig
from helios_server.models.families import Names, family_of
from helios_server.models.folder import COMPLETE, find_shards, refuse_other_forms
from helios_server.models.header import FLOATS, INTEGERS, TensorEntry, read_header
from helios_server.models.json_file import read_object
from helios_server.models.layout import HEAD, canonical, check_layout
from helios_server.models.reading import reading
from helios_server.models.shapes import layer_shapes
from helios_server.native.quantised import Quantised

# Of config.json, what changes the function that the weights compute, whatever the family.
_ESSENTIALS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "vocab_size", "rms_norm_eps", "rope_theta", "rope_scaling",
    "rope_parameters", "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window",
    "use_sliding_window", "hidden_act",
)  # fmt: skip
_SAMPLES, _SAMPLE_BYTES = 16, 256
_COMPARED_BYTES = 1 << 20


class Checkpoint:
    """One model on disk.

    `bytes_read` counts the tensor bytes read so far; `strangers` are tensors that are no part of the model;
    `named`: how a command is told which model this is.
    """

    def __init__(
        self,
        path: Path,
        raw_config: dict[str, Any],
        config: ModelConfig,
        shard_of: Mapping[str, str],
        entries: Mapping[str, TensorEntry],
        strangers: tuple[str, ...],
        named: str,
    ) -> None:
        self.path = path
        self.named = named
        self.raw_config = raw_config
        self.config = config
        self.strangers = strangers
        self.bytes_read = 0
        self._shard_of = shard_of
        self._entries = entries

    @classmethod
    def open(cls, path: Path | str, named: str = "") -> Checkpoint:
        """Opens a directory and compares its tensors with its config.json; reads no tensor. named: as a
        command is told it, empty for the path's own uri. Raises CheckpointError or UnsupportedModelError."""
        path = Path(path)
        if not path.is_dir():
            raise CheckpointError(str(path), "no such checkpoint directory", "Check the model's uri")
        with reading(str(path)):
            return cls._open(path, named or shlex.quote(f"file://{path.absolute()}"))

    @classmethod
    def _open(cls, path: Path, named: str) -> Checkpoint:
        raw_config, config = _read_config(path)
        shards = find_shards(path)
        names = _canonical(path, shards, config.names)
        entries = _read_entries(path, shards, names)
        strangers = check_layout(path, config, names, entries)
        shard_of = {name: shards[stored] for name, stored in names.items()}
        return cls(path, raw_config, config, shard_of, entries, strangers, named)

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that the checkpoint claims to hold."""
        return tuple(self._shard_of)

    def tensor(self, name: str, rows: int | slice | None = None) -> Tensor:
        """Reads one tensor, or its first rows, or those of a slice, as stored, on the CPU."""
        entry = self.entry(name)
        if rows is not None:
            chosen = rows if isinstance(rows, slice) else slice(0, rows)
            entry = entry.rows(chosen.stop - chosen.start, chosen.start)
        data = torch.empty(entry.nbytes, dtype=torch.uint8)
        _read_exactly(entry, data)
        self.bytes_read += entry.nbytes
        return data.view((FLOATS | INTEGERS)[entry.dtype]).reshape(entry.shape)

    def matrix(self, name: str, in_features: int, rows: int | slice | None = None) -> Tensor | Quantised:
        """Reads one matrix as it was published: floats, or int8 with its units. rows: as of a tensor."""
        published = self.config.published
        if published is None or not published.holds(name, self._shard_of):
            return self.tensor(name, rows)
        units = self.tensor(f"{name}_scale", rows).float()
        if not published.packed:
            return Quantised("int8", in_features, self.tensor(name, rows), units)
        words = self.tensor(f"{name}_packed", rows)
        values = (words.view(torch.uint8) ^ 0x80).view(torch.int8)  # stored 128 too large
        return Quantised("int8", in_features, values[:, :in_features].contiguous(), units)

    def layer_tensors(self, layer: int) -> dict[str, Tensor | Quantised]:
        """Reads all tensors of one decoder layer, by their name within the layer."""
        layers = self.config.names.layers
        shapes = layer_shapes(self.config)
        return {name: self.matrix(f"{layers}.{layer}.{name}", shape[-1]) for name, shape in shapes.items()}

    def entry(self, name: str) -> TensorEntry:
        """Where a tensor lies."""
        if name not in self._shard_of:
            raise CheckpointError(str(self.path), f"tensor '{name}' is missing", COMPLETE)
        if name not in self._entries:
            raise CheckpointError(str(self.path / self._shard_of[name]), "file is missing", COMPLETE)
        return self._entries[name]

    @cached_property
    def embedding_name(self) -> str:
        """The tensor that embeds tokens: its own, or a tied head's where that alone was written."""
        own = self.config.names.embedding
        return own if own in self._shard_of else HEAD

    @cached_property
    def head_name(self) -> str:
        """The tensor of the LM head: the embedding's where they are tied, unless the files hold another head,
        which then counts, as in transformers."""
        if not self.config.tied_embeddings:
            return HEAD
        embedding, published = self.embedding_name, self.config.published
        if published is not None and published.holds(HEAD, self._shard_of):
            return HEAD
        return HEAD if HEAD in self._shard_of and not self._equal(embedding, HEAD) else embedding

    def _equal(self, *names: str) -> bool:
        """Whether two tables have the same bytes in the rows of the vocabulary."""
        one, other = (self.entry(name).rows(self.config.vocab_size) for name in names)
        if one.dtype != other.dtype:
            return False
        with one.file.open("rb") as left, other.file.open("rb") as right:
            for offset in range(0, one.nbytes, _COMPARED_BYTES):
                size = min(_COMPARED_BYTES, one.nbytes - offset)
                pieces = [
                    os.pread(file.fileno(), size, entry.start + offset)
                    for file, entry in ((left, one), (right, other))
                ]
                if pieces[0] != pieces[1]:
                    return False
        return True

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the function computed: sha256 over config, tensor shapes and a strided sample of
        their bytes."""
        fields = (*_ESSENTIALS, *family_of(self.raw_config).essentials)
        essentials = {key: self.raw_config[key] for key in fields if key in self.raw_config}
        digest = hashlib.sha256(json.dumps(essentials, sort_keys=True).encode())
        for name in sorted(self._shard_of):
            entry = self.entry(name)
            digest.update(f"{name}|{entry.shape}|{entry.dtype}".encode(errors="backslashreplace"))
            digest.update(_sample(entry))
        return digest.hexdigest()


def _read_config(path: Path) -> tuple[dict[str, Any], ModelConfig]:
    file, generation = path / "config.json", path / "generation_config.json"
    if not file.is_file():
        refuse_other_forms(path)
    raw = read_object(file, "Give a Hugging Face checkpoint directory")
    also = read_object(generation, "Copy it again, or remove it") if generation.exists() else {}
    return raw, ModelConfig.from_hf(raw, also)


def _canonical(path: Path, shards: Mapping[str, str], names: Names) -> dict[str, str]:
    try:
        return canonical(shards, names)
    except ValueError as error:
        raise CheckpointError(str(path), str(error), "Remove one of the two") from None


def _read_entries(path: Path, shards: Mapping[str, str], names: Mapping[str, str]) -> dict[str, TensorEntry]:
    """By canonical name, the tensors of all files that are there."""
    files = {file for file in shards.values() if (path / file).exists()}
    headers = {file: read_header(path / file) for file in sorted(files)}
    for stored, file in shards.items():
        if file in headers and stored not in headers[file]:
            raise CheckpointError(str(path / file), f"tensor '{stored}' is missing from this file", COMPLETE)
    there = {name: stored for name, stored in names.items() if shards[stored] in headers}
    return {name: headers[shards[stored]][stored] for name, stored in there.items()}


def _read_exactly(entry: TensorEntry, data: Tensor) -> None:
    if entry.nbytes == 0:
        return
    try:
        with entry.file.open("rb") as handle:
            handle.seek(entry.start)
            got = handle.readinto(memoryview(data.numpy().data))
    except OSError as error:
        raise CheckpointError(str(entry.file), f"cannot be read ({error})", COMPLETE) from error
    if got != entry.nbytes:
        raise CheckpointError(str(entry.file), "is truncated", COMPLETE)


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
