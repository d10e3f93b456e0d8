"""What the frontier is drawn of: a model, its exit heads, the depths and precisions to combine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helios_contract.limits import Audit, Limits
from helios_contract.serves import Precision
from helios_server.models.store import ensure_smollm2
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import OpenCandidate, open_backbone

_EXITS, _EXIT_LAYERS = "builtin://general", (27, 24)


@dataclass(frozen=True)
class Subject:
    """exits: uri of a bundle, "": the model's own head at every depth; depths: in layers, full depth first;
    dtype: None: the device's; isl, osl: tokens of a request's prompt and answer."""

    uri: str
    exits: str
    depths: tuple[int, ...]
    precisions: tuple[Precision, ...]
    isl: int
    osl: int
    dtype: str | None = None

    @property
    def tokens(self) -> int:
        """Of a request."""
        return self.isl + self.osl

    @property
    def candidate(self) -> Candidate:
        """As the profile takes it."""
        return Candidate("frontier", self.uri, None, self.exits or None, self.depths[1:])

    @property
    def opened(self) -> Sequence[OpenCandidate]:
        """With its files open; headers alone are read."""
        return open_backbone((self.candidate,), None)

    def limits(self, layers: int, precision: Precision, memory_mib: int) -> Limits:
        """Under which a process serves one combination, without audits."""
        full = layers == self.depths[0]
        return Limits(
            generation=1,
            candidate="frontier",
            model_uri=self.uri,
            exits_uri="" if full else self.exits,
            layer_budget=layers,
            memory_mib=memory_mib,
            max_queue_size=1000,
            exit_layers=(layers,),
            audit=Audit(percent=0),
            tokens_per_request=self.tokens,
            weight_dtype=precision.weight_dtype,
            kv_cache_dtype=precision.kv_cache_dtype,
        )


def subject_of(
    model: str | None,
    below: Sequence[int] | None,
    precisions: tuple[Precision, ...],
    isl: int,
    osl: int,
    dtype: str | None,
) -> Subject:
    """model: a uri, of a checkpoint with its own head; None: SmolLM2-135M with its general heads. below:
    depths beside full depth; None: those of the heads, or two thirds."""
    uri, exits = model or f"file://{ensure_smollm2()}", "" if model else _EXITS
    deepest = Subject(uri, exits, (), precisions, isl, osl, dtype).opened[0].checkpoint.config.num_layers
    shallower = below or ((deepest * 2 // 3,) if model else _EXIT_LAYERS)
    return Subject(uri, exits, (deepest, *shallower), precisions, isl, osl, dtype)


def depths(text: str) -> tuple[int, ...]:
    """Of an option: "27,24", deepest first."""
    return tuple(sorted({int(part) for part in text.split(",")}, reverse=True))
