"""The layer-budget loader: embeddings, the first k decoder layers, final norm and LM head of one checkpoint.

Called by the engine, the profiler, the audit and exit tuning. It reads layers below the budget only and
decides nothing: which layers run, and over which rows, is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import cast

import torch
from helios_contract.serves import AUTO, REFERENCE, Precision
from torch import Tensor

from helios_server.errors import CheckpointError
from helios_server.models.block import DecoderLayer
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Linear, Numerics
from helios_server.models.native_path import NativeLayer, NativePath
from helios_server.models.norm import Norm, make_norm
from helios_server.models.reading import reading
from helios_server.models.rope import Rope, RopeTable
from helios_server.models.shapes import norm_parts
from helios_server.models.slabs import SlabLayout
from helios_server.models.source import Source
from helios_server.models.step import Step
from helios_server.native.quantised import Quantised, floats, joined, widening_bytes

logger = logging.getLogger(__name__)

Layer = DecoderLayer | NativeLayer
"""As torch computes it, or as the native kernels do: all layers of a backbone are of one kind."""
_HEAD_ROWS = 4096
"""Of an LM head that is quantised, read at a time."""


class Backbone:
    """A model of `num_loaded` layers, resident. Build it with `Backbone.load`."""

    def __init__(
        self,
        source: Source,
        numerics: Numerics,
        embedding: Tensor | None,
        positions: Tensor | None,
        norm: Norm,
        head: Linear,
        rope: RopeTable,
    ) -> None:
        self.source = source
        self.numerics = numerics
        self.layers: list[Layer] = []
        self.embedding = embedding
        self.head = head
        self.norm = norm
        self._positions = positions
        self._rope = rope
        # Rounded as transformers does: a model was trained with what that comes to.
        self._scale = float(torch.tensor(self.config.embedding_scale, dtype=numerics.weights))
        library = numerics.library
        self._native = None if library is None else NativePath(library, source.checkpoint.config, rope)
        self._lacking = torch.empty(0, dtype=torch.int64, device=numerics.device)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        layers: int,
        device: str = "cpu",
        dtype: str | None = None,
        max_context: int | None = None,
        precision: Precision = REFERENCE,
        *,
        native: bool = True,
    ) -> Backbone:
        """Loads the first `layers` layers. dtype None: the device's default. max_context: tokens, at most the
        config's longest_context; None: the model's. native False: torch computes, whatever is there.

        precision: of weights, each matrix quantised when it is read, and of keys and values. Raises
        UnsupportedModelError, weight_dtype or kv_cache_dtype, for what cannot be had here.
        """
        _check_budget(layers, checkpoint.config)
        native_block = native and checkpoint.config.plain_block
        numerics = Numerics.of(device, dtype, precision, native=native_block)
        with reading(str(checkpoint.path)):
            _tell(checkpoint)
            if native and not checkpoint.config.plain_block:
                logger.info("%s: torch computes it, native kernels do not know its block", checkpoint.path)
            backbone = cls._without_layers(checkpoint, numerics, max_context)
            backbone.attach([backbone.load_layer(index) for index in range(layers)])
        return backbone

    @classmethod
    def _without_layers(cls, checkpoint: Checkpoint, numerics: Numerics, max_context: int | None) -> Backbone:
        config, source = checkpoint.config, Source(checkpoint)
        tied, own = checkpoint.head_name == checkpoint.embedding_name, _head(checkpoint, numerics)
        head, embedding = Linear(own, None, numerics), None
        if not (tied and head.gives_rows):
            table = floats(own) if tied else checkpoint.tensor(checkpoint.embedding_name, config.vocab_size)
            embedding = table.to(numerics.device, numerics.weights)
        context = config.context(max_context)
        positions = _positions(checkpoint, numerics, context)
        rope = RopeTable(config, numerics, context)
        return cls(source, numerics, embedding, positions, _final_norm(checkpoint, numerics), head, rope)

    def in_precision(self, precision: Precision) -> Backbone:
        """The same model, which shares this one's embedding, head and norms: the layers that it loads are in
        another precision. It has this one's layers, if their weights are in that precision, else none.
        """
        other = copy(self)
        other.numerics = Numerics.of(
            self.numerics.device, self.numerics.dtype, precision, native=self.is_native
        )
        alike = precision.weight_dtype == self.precision.weight_dtype
        other.layers = [layer.with_keys_and_values(other.numerics) for layer in self.layers if alike]
        return other

    @property
    def checkpoint(self) -> Checkpoint:
        """Where late layers are read."""
        return self.source.checkpoint

    @property
    def config(self) -> ModelConfig:
        """The architecture of the whole checkpoint (its num_layers, not the loaded ones)."""
        return self.checkpoint.config

    @property
    def precision(self) -> Precision:
        """As it was asked for."""
        return self.numerics.precision

    @property
    def is_native(self) -> bool:
        """Whether the native kernels compute: a row's result is then bit for bit the same in any company."""
        return self._native is not None

    @property
    def layout(self) -> SlabLayout:
        """Of its keys and values, in pages of the usual size."""
        return SlabLayout.of(self.config, self.numerics)

    # -- computing

    @property
    def learns_positions(self) -> bool:
        """Whether the embedding needs to know them."""
        return self._positions is not None

    def embed(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """ids, positions: [T] int64, these None where none are learnt. Returns [T, hidden_size], activation
        dtype."""
        rows = self.head.rows(ids) if self.embedding is None else self.embedding[ids]
        return self.placed(rows, positions)

    def placed(self, rows: Tensor, positions: Tensor | None) -> Tensor:
        """Rows of the embedding, [T, hidden_size], as the first layer reads them: activation dtype."""
        activations = self.numerics.activations
        hidden = rows if rows.dtype == activations else rows.to(activations)
        if self._scale != 1.0:
            hidden = hidden * self._scale
        if self._positions is not None:
            if positions is None:
                raise ValueError("positions: this model has learnt some, and none are given")
            hidden = hidden + self._positions[positions].to(hidden.dtype)
        return hidden

    def rope(self, positions: Tensor) -> Rope:
        """positions: [T] int64. Returns cos, sin: [T, bases * head_dim], activation dtype."""
        return self._rope.at(positions)

    def run_layers(self, hidden: Tensor, start: int, stop: int, step: Step) -> Tensor:
        """Runs layers start <= i < stop over the step's tokens. hidden: [T, hidden_size], overwritten.
        Returns the same shape."""
        return self.run([self.layers[index] for index in range(start, stop)], hidden, step)

    def run(self, layers: Sequence[Layer], hidden: Tensor, step: Step) -> Tensor:
        """The same of given layers of this backbone, which need not be attached."""
        if self._native is not None:
            return self._native.run(cast(Sequence[NativeLayer], layers), hidden, step)
        rope = self.rope(step.positions)
        for layer in cast(Sequence[DecoderLayer], layers):
            attend = partial(step.attention.attend, step.slabs.slab(layer.index))
            hidden = layer.forward(hidden, rope, attend)
        return hidden

    def skip_layers(self, hidden: Tensor, start: int, step: Step) -> None:
        """Gives tokens that left after `start` layers keys and values in all later ones, made of the state
        that they left with, so that others can attend to them there. hidden: [T, hidden_size]. Torch's path
        alone."""
        rope = self.rope(step.positions)
        for layer in cast(Sequence[DecoderLayer], self.layers[start:]):
            step.places.store(step.slabs.slab(layer.index), *layer.keys_and_values(hidden, rope))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The model's own norm before the LM head: [N, hidden_size] -> the same."""
        library = self.numerics.library
        return library.rms_norm(hidden, self.norm.weight, self.norm.eps) if library else self.norm(hidden)

    def logits(self, normed: Tensor, out: Tensor | None = None) -> Tensor:
        """normed: [N, hidden_size]. Returns [N, vocab_size], float32 (float64 in a float64 model); out: where
        they go, natively."""
        logits = self.head(normed, out)
        return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()

    def choices(self, normed: Tensor, out: Tensor | None = None) -> Tensor:
        """The same, to choose a token from: an id that the tokenizer lacks has the least logit there is."""
        logits = self.logits(normed, out)
        if not self._lacking.numel():
            return logits
        return logits.index_fill_(1, self._lacking, torch.finfo(logits.dtype).min)

    def never_choose(self, lacking: Sequence[int]) -> None:
        """Tells which ids of the vocabulary its tokenizer lacks: those of rows that only pad the head."""
        if len(lacking) >= self.config.vocab_size:
            problem = f"its tokenizer has none of the {self.config.vocab_size} ids of the vocabulary"
            raise CheckpointError(str(self.checkpoint.path), problem, "Put this model's tokenizer there")
        self._lacking = torch.tensor(lacking, dtype=torch.int64, device=self.numerics.device)

    # -- the budget

    @property
    def num_loaded(self) -> int:
        """Layers resident."""
        return len(self.layers)

    def load_layer(self, index: int) -> Layer:
        """Reads one layer without attaching it (to grow in the background, or to audit).

        Raises CheckpointError where the files are no longer those of this model.
        """
        kind = DecoderLayer if self._native is None else NativeLayer
        return kind(index, self.source.layer_tensors(index), self.config, self.numerics)

    def attach(self, layers: Sequence[Layer]) -> None:
        """Appends layers, which must continue the loaded ones without a gap."""
        expected = list(range(self.num_loaded, self.num_loaded + len(layers)))
        if [layer.index for layer in layers] != expected:
            raise CheckpointError("layers", f"expected layers {expected} to attach", "Attach layers in order")
        self.layers.extend(layers)

    def truncate(self, layers: int) -> None:
        """Drops every layer >= `layers`."""
        del self.layers[layers:]

    # -- memory

    @property
    def fixed_bytes(self) -> int:
        """Resident bytes that do not depend on the budget: embeddings, head, final norm, positions."""
        tables = sum(_bytes(table) for table in (self.embedding, self._positions) if table is not None)
        return tables + self.head.nbytes + self.norm.nbytes + self._rope.nbytes

    @property
    def layer_bytes(self) -> int:
        """Resident bytes of one layer (all layers of a model are alike)."""
        return self.layers[0].nbytes

    @property
    def widening_bytes(self) -> int:
        """Temporaries of a product on torch's path, where weights are quantised."""
        numerics = self.numerics
        floats_only = numerics.precision.weight_dtype == AUTO and self.config.published is None
        return 0 if self.is_native or floats_only else widening_bytes(numerics.device, numerics.activations)

    @property
    def resident_bytes(self) -> int:
        """Resident bytes of everything loaded."""
        return self.fixed_bytes + sum(layer.nbytes for layer in self.layers)


def _head(checkpoint: Checkpoint, numerics: Numerics) -> Tensor | Quantised:
    """The LM head as it will be held. Quantised, no more of it than a block is ever there as floats."""
    name, size, rows = checkpoint.head_name, checkpoint.config.hidden_size, checkpoint.config.vocab_size
    if numerics.precision.weight_dtype == AUTO:
        return checkpoint.matrix(name, size, rows)
    parts = [numerics.held(checkpoint.matrix(name, size, block)) for block in _blocks(rows)]
    return joined(parts)


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + _HEAD_ROWS, rows)) for first in range(0, rows, _HEAD_ROWS))


def _positions(checkpoint: Checkpoint, numerics: Numerics, context: int) -> Tensor | None:
    """The learned positions of so many tokens: [context, hidden_size], dtype of the weights."""
    config = checkpoint.config
    if config.names.positions is None or config.position_offset is None:
        return None
    stored = checkpoint.tensor(config.names.positions, config.position_offset + context)
    return stored[config.position_offset :].to(numerics.device, numerics.weights)


def _final_norm(checkpoint: Checkpoint, numerics: Numerics) -> Norm:
    config = checkpoint.config
    weight, *bias = (
        numerics.weight(checkpoint.tensor(f"{config.names.final_norm}.{part}")) for part in norm_parts(config)
    )
    return make_norm(config.norm, weight, bias[0] if bias else None, config.norm_eps)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tell(checkpoint: Checkpoint) -> None:
    """What a reader of config.json would not expect."""
    for note in checkpoint.config.notes:
        logger.warning("%s: %s", checkpoint.path, note)
    if checkpoint.strangers:
        names = ", ".join(checkpoint.strangers)
        logger.warning("%s: no part of the model and ignored: %s", checkpoint.path, names)
    if checkpoint.config.tied_embeddings and checkpoint.head_name != checkpoint.embedding_name:
        logger.warning(
            "%s: config.json ties the LM head to the embedding, but the files hold another lm_head.weight, "
            "which is used; set tie_word_embeddings to false to silence this",
            checkpoint.path,
        )


def _check_budget(layers: int, config: ModelConfig) -> None:
    if not 1 <= layers <= config.num_layers:
        raise CheckpointError(
            "layers",
            f"{layers} is outside 1..{config.num_layers}, the model's depth",
            "Choose a smaller layer budget",
        )
