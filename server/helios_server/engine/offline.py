"""The plain loop: one sequence, its keys and values one after the other, no batches, no schedule.

The oracle that tests and the demo hold streams against: it follows the spans that a stream's end names and
must come to the same tokens. It must share nothing with the engine but the model, the heads and the choice of
tokens: which pages a sequence has, and who runs beside it, are the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path

import torch
from helios_contract.serves import WHOLE_SEQUENCES, Precision
from torch import Tensor

from helios_server.engine.request import Served, Span
from helios_server.engine.sampler import choose
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.sequence import Sequence
from helios_server.errors import BundleError, CheckpointError, RequestFailed
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.exits.head import BareHead, ExitHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.rows import RowBuffers, Stretch
from helios_server.models.slabs import PAGE_TOKENS, Scratch
from helios_server.models.step import Step
from helios_server.models.store import resolve
from helios_server.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Weights:
    """What produced a span: a backbone with at least its depth loaded, and the head at that depth."""

    backbone: Backbone
    head: ExitHead


Resolve = Callable[[Served], Weights]
NEAR_TIE = 1e-3
"""Of two logits: closer than that, torch's sums in another order may swap them."""


@dataclass(frozen=True)
class Offline:
    """The loop's answer.

    margins: of each token, how far the two largest logits were apart before it was chosen; infinite where the
    native kernels compute, whose sums have one order: there is no near-tie then.
    """

    token_ids: tuple[int, ...]
    margins: tuple[float, ...]


@torch.inference_mode()
def generate(
    weights_of: Resolve,
    request_id: str,
    prompt_ids: tuple[int, ...],
    sampling: SamplingParams,
    spans: Many[Span],
    tokens: int,
    forced: Many[int] = (),
) -> Offline:
    """Generates `tokens` tokens as the spans say, which begin with one from token 0; stops for nothing else.

    Raises RequestFailed when the logits are not finite.
    forced: tokens to go on with in place of the loop's own choices, so that one near-tie does not spoil what
    follows.
    """
    sequence = Sequence(request_id, prompt_ids, sampling, max_tokens=tokens)
    cache, chosen, margins = _Cache(len(prompt_ids) + tokens), list[int](), list[float]()
    for index in range(tokens):
        served = next(span.served for span in reversed(spans) if span.from_token <= index)
        weights = weights_of(served)
        cache.follow(weights.backbone, served)
        hidden = cache.extend(sequence.tokens(cache.length, sequence.length), served)
        logits = weights.backbone.choices(weights.head.apply(hidden[-1:]))
        largest = logits[0].topk(2).values
        margins.append(math.inf if weights.backbone.is_native else float(largest[0] - largest[1]))
        eos_ids, kernels = weights.backbone.config.eos_token_ids, weights.backbone.numerics.library
        [choice] = choose(logits, [sequence], eos_ids, kernels)
        if isinstance(choice, RequestFailed):
            raise choice
        chosen.append(choice.token_id)
        sequence.append(forced[index] if index < len(forced) else choice.token_id, served)
    return Offline(tuple(chosen), tuple(margins))


def first_difference(
    weights_of: Resolve,
    request_id: str,
    prompt_ids: tuple[int, ...],
    sampling: SamplingParams,
    spans: Many[Span],
    output: Many[int],
) -> int | None:
    """Place of the first token of an answer that the loop would not have chosen, near-ties apart; None: it
    would have chosen them all.
    """
    offline = generate(weights_of, request_id, prompt_ids, sampling, spans, len(output), forced=output)
    compared = zip(output, offline.token_ids, offline.margins, strict=True)
    return next(
        (place for place, (a, b, margin) in enumerate(compared) if a != b and margin >= NEAR_TIE), None
    )


class Shelf:
    """Finds the weights that a span names; loads each model once in each precision, with all its layers.

    bundles: uri of each bundle by its digest, which is all that a span tells; dtype: as the server computes.
    """

    def __init__(
        self,
        bundles: Mapping[str, str],
        dtype: str | None = None,
        device: str = "cpu",
        volumes: Path | None = None,
    ) -> None:
        self._bundles = bundles
        self._dtype = dtype
        self._device = device
        self._volumes = volumes
        self._backbones: dict[tuple[str, str, Precision, str], Backbone] = {}
        self._heads: dict[Served, ExitHead] = {}

    def __call__(self, served: Served) -> Weights:
        """Raises BundleError for a digest that is not on the shelf, CheckpointError for a backbone that is
        another.
        """
        backbone = self._backbone(served)
        if served not in self._heads:
            self._heads[served] = self._head(served, backbone)
        return Weights(backbone, self._heads[served])

    def _backbone(self, served: Served) -> Backbone:
        key = served.model_uri, served.revision, served.precision, served.exit_mode
        if key not in self._backbones:
            found = resolve(served.model_uri, served.revision, volumes=self._volumes)
            checkpoint = Checkpoint.open(found.path)
            if checkpoint.fingerprint != served.backbone:
                problem = f"is another backbone than the span's, {served.backbone[:12]}"
                raise CheckpointError(served.model_uri, problem, "Put the model back that served")
            layers = checkpoint.config.num_layers
            native = served.exit_mode == WHOLE_SEQUENCES
            backbone = Backbone.load(
                checkpoint, layers, self._device, self._dtype, precision=served.precision, native=native
            )
            backbone.never_choose(Tokenizer.open(found.path).lacking(checkpoint.config.vocab_size))
            self._backbones[key] = backbone
        return self._backbones[key]

    def _head(self, served: Served, backbone: Backbone) -> ExitHead:
        if not served.exits_digest:
            return BareHead(backbone)
        if served.exits_digest not in self._bundles:
            raise BundleError(served.exits_digest, "no bundle with this digest was given", "Give its uri")
        ref = BundleRef(self._bundles[served.exits_digest], served.exits_digest)
        return open_bundle(ref, backbone.checkpoint, volumes=self._volumes).head(served.depth, backbone)


class _Cache:
    """Keys and values by layer, for one backbone. most: tokens that there may come to be.

    `length`: tokens that have them in every layer still in use.
    """

    def __init__(self, most: int) -> None:
        self.length = 0
        self._most = most
        self._backbone: Backbone | None = None
        self._depth = 0
        self._buffers = RowBuffers(PAGE_TOKENS)

    def follow(self, backbone: Backbone, served: Served) -> None:
        """Another model begins with nothing, and so does more depth: its layers have not seen what came
        before, but where each token leaves at a depth of its own.
        """
        depth = served.depth if served.exit_mode == WHOLE_SEQUENCES else backbone.num_loaded
        if backbone is not self._backbone or depth > self._depth:
            self._backbone, self.length = backbone, 0
            self._slabs = Scratch(backbone.layout, [self._most], shared=False)
        self._depth = depth

    def extend(self, ids: tuple[int, ...], served: Served) -> Tensor:
        """Runs new tokens through the layers. Returns hidden states, [n, hidden_size], the newest last."""
        if served.exit_mode == WHOLE_SEQUENCES:
            return self._run(ids, served.depth)
        *silent, last = ids
        if silent:
            self._run(tuple(silent), self._depth)
        return self._run((last,), served.depth)

    def _run(self, ids: tuple[int, ...], depth: int) -> Tensor:
        """Through the first `depth` layers, and past the others that the cache is of."""
        backbone = self._backbone
        if backbone is None:
            raise ValueError("follow a backbone first")
        stretch = Stretch(self.length, len(ids), self._slabs.pages_of[0])
        step = Step(self._buffers.fill([stretch]), self._slabs)
        hidden = backbone.embed(torch.tensor(ids, device=backbone.numerics.device), step.positions)
        hidden = backbone.run_layers(hidden, 0, depth, step)
        if depth < self._depth:
            backbone.skip_layers(hidden, depth, step)
        self.length += len(ids)
        return hidden
