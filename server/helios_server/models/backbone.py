"""The layer-budget loader: embeddings, the first k decoder layers, final norm and LM head of one checkpoint.

Called by the engine, the profiler, the audit and exit tuning. It reads layers below the budget only and
decides nothing: which layers run, over which rows and with which attention, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from helios_server.errors import CheckpointError
from helios_server.models.block import Attend, DecoderLayer
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Linear, Numerics
from helios_server.models.norm import RmsNorm
from helios_server.models.rope import Rope, RopeTable


class Backbone:
    """A model of `num_loaded` layers, resident. Build it with `Backbone.load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        numerics: Numerics,
        embedding: Tensor,
        norm: RmsNorm,
        head: Linear,
        rope: RopeTable,
    ) -> None:
        self.checkpoint = checkpoint
        self.numerics = numerics
        self.layers: list[DecoderLayer] = []
        self.embedding = embedding
        self.head = head
        self.norm = norm
        self._rope = rope

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        layers: int,
        device: str = "cpu",
        dtype: str | None = None,
        max_context: int | None = None,
    ) -> Backbone:
        """Loads the first `layers` layers. dtype None: the device's default. max_context: tokens; None: the
        model's."""
        config = checkpoint.config
        _check_budget(layers, config)
        numerics = Numerics.of(device, dtype)
        table = checkpoint.tensor("model.embed_tokens.weight")
        head = Linear(
            table if config.tied_embeddings else checkpoint.tensor("lm_head.weight"), None, numerics
        )
        tied = config.tied_embeddings and head.weight is not None
        embedding = head.weight if tied else table.to(numerics.device, numerics.weights)
        norm = RmsNorm(numerics.weight(checkpoint.tensor("model.norm.weight")), config.norm_eps)
        rope = RopeTable(config, numerics, min(max_context or config.max_context, config.max_context))
        backbone = cls(checkpoint, numerics, embedding, norm, head, rope)  # type: ignore[arg-type]
        backbone.attach([backbone.load_layer(index) for index in range(layers)])
        return backbone

    @property
    def config(self) -> ModelConfig:
        """The architecture of the whole checkpoint (its num_layers, not the loaded ones)."""
        return self.checkpoint.config

    # -- computing

    def embed(self, ids: Tensor) -> Tensor:
        """ids: [T] int64. Returns [T, hidden_size], activation dtype."""
        return self.embedding[ids].to(self.numerics.activations)

    def rope(self, positions: Tensor) -> Rope:
        """positions: [T] int64. Returns cos, sin: [T, head_dim], activation dtype."""
        return self._rope.at(positions)

    def run_layers(
        self, hidden: Tensor, start: int, stop: int, rope: Rope, attend_for: Callable[[int], Attend]
    ) -> Tensor:
        """Runs layers start <= i < stop over hidden: [T, hidden_size]; attend_for(i) gives layer i's
        attention."""
        for index in range(start, stop):
            hidden = self.layers[index].forward(hidden, rope, attend_for(index))
        return hidden

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The model's own norm before the LM head: [N, hidden_size] -> the same."""
        return self.norm(hidden)

    def logits(self, normed: Tensor) -> Tensor:
        """normed: [N, hidden_size]. Returns [N, vocab_size], float32 (float64 in a float64 model)."""
        logits = self.head(normed)
        return logits if logits.dtype == torch.float64 else logits.float()

    # -- the budget

    @property
    def num_loaded(self) -> int:
        """Layers resident."""
        return len(self.layers)

    def load_layer(self, index: int) -> DecoderLayer:
        """Reads one layer without attaching it (to grow in the background, or to audit)."""
        return DecoderLayer(index, self.checkpoint.layer_tensors(index), self.config, self.numerics)

    def attach(self, layers: Sequence[DecoderLayer]) -> None:
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
        """Resident bytes that do not depend on the budget: embeddings, head, final norm, rope table."""
        shared = self.head.weight is self.embedding
        table = 0 if shared else self.embedding.numel() * self.embedding.element_size()
        return table + self.head.nbytes + self.norm.nbytes + self._rope.nbytes

    @property
    def layer_bytes(self) -> int:
        """Resident bytes of one layer (all layers of a model are alike)."""
        return self.layers[0].nbytes

    @property
    def resident_bytes(self) -> int:
        """Resident bytes of everything loaded."""
        return self.fixed_bytes + sum(layer.nbytes for layer in self.layers)


def _check_budget(layers: int, config: ModelConfig) -> None:
    if not 1 <= layers <= config.num_layers:
        raise CheckpointError(
            "layers",
            f"{layers} is outside 1..{config.num_layers}, the model's depth",
            "Choose a smaller layer budget",
        )
