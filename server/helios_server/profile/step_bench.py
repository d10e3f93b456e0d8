"""A backbone in memory whose steps can be timed, alone in the process or beside itself in other precisions.

Called by `timing.py`. It looks at no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from helios_contract.serves import Precision
from torch import Tensor

from helios_server.engine import host_memory
from helios_server.engine.heads import Heads, LoadedBundle
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig
from helios_server.engine.memory import load_first_layer, measure
from helios_server.engine.runner import Runner
from helios_server.exits.head import BareHead, ExitHead
from helios_server.models.backbone import Backbone
from helios_server.profile.extent import Extent, Outline, alone
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.pods import hold_what_pods_hold
from helios_server.profile.timing_settings import TimingSettings
from helios_server.profile.workload import Room, Shape, plan_step


@dataclass(frozen=True, slots=True)
class HeadSample:
    """One exit head that stands for all of its kind. digest: of its bundle; bundle_bytes: resident, all
    exits."""

    head: ExitHead
    digest: str
    bundle_bytes: int


_BYTE = 60
"""Of integers, of which four are their float32 unit too: 60 times .0115. With other bytes a unit may be so
small that its products are subnormal, over which some processors take a hundred times as long."""


def fill(slab: Tensor) -> None:
    """With keys and values of a usual size: what nobody wrote is, on a CPU, one page of zeros in the nearest
    cache, whatever the context."""
    slab.fill_(1 if slab.is_floating_point() else _BYTE)


class Bench:
    """A backbone in memory to some depth, a head of each kind, and a KV pool for the largest step. backbone:
    with its first layer loaded; deeper it is loaded here."""

    def __init__(
        self,
        backbone: Backbone,
        outline: Outline,
        samples: Mapping[str, HeadSample],
        extent: Extent,
    ) -> None:
        backbone.attach([backbone.load_layer(index) for index in range(1, extent.layers)])
        host_memory.trim()
        facts = outline.facts
        self.backbone = backbone
        self.facts = facts
        self.samples = samples
        self.room = Room(extent.rows, extent.tokens, facts.page_tokens, outline.context, facts.step_tokens)
        # A head's cost does not depend on the layer that it was trained for: each is put at every depth.
        everywhere = range(1, backbone.num_loaded + 1)
        bundles = [LoadedBundle(s.digest, dict.fromkeys(everywhere, s.head), {}) for s in samples.values()]
        self._heads = Heads(backbone, bundles)
        pages = self.room.tokens // facts.page_tokens
        self._pool = KvPool(backbone.config, backbone.numerics, backbone.num_loaded, pages, facts.page_tokens)
        self._runner = Runner(backbone, self._heads, self._pool, "")  # of all shapes: it keeps logits
        for layer in range(self._pool.layers):
            fill(self._pool.slab(layer))

    @classmethod
    def open(
        cls, candidates: Sequence[OpenCandidate], settings: TimingSettings, precision: Precision
    ) -> Bench:
        """Alone in the process, as deep as fits: one layer tells what all of them take."""
        backbone, samples, outline = _first_layer(candidates, settings, precision)
        return cls(backbone, outline, samples, alone(outline, settings.limit_bytes()))

    @classmethod
    def beside_others(
        cls,
        candidates: Sequence[OpenCandidate],
        settings: TimingSettings,
        outline: Outline,
        extent: Extent,
    ) -> Bench:
        """As deep as there is room for all of them."""
        backbone = _load(candidates, settings, outline.precision)
        return cls(backbone, outline, _sample_heads(candidates, backbone), extent)

    @property
    def precision(self) -> Precision:
        """Of its weights and of its keys and values."""
        return self.backbone.precision

    @property
    def deepest(self) -> int:
        """Layers in memory."""
        return self.backbone.num_loaded

    @property
    def digests(self) -> dict[str, str]:
        """Kind of head -> digest of the bundle that stands for it, the model's own head first."""
        return {BareHead.kind: ""} | {kind: sample.digest for kind, sample in self.samples.items()}

    @property
    def exit_bytes(self) -> dict[str, int]:
        """Kind of head -> resident bytes of a bundle."""
        return {BareHead.kind: 0} | {kind: sample.bundle_bytes for kind, sample in self.samples.items()}

    def step(self, shape: Shape) -> Callable[[], None]:
        """A step of that shape, to be run any number of times."""
        runner = self._runner
        plan = plan_step(shape, self.room.page_tokens, self.backbone.config.vocab_size, seed=shape.rows)
        on_device = self.backbone.numerics.device.type == "cuda"

        def run() -> None:
            runner.digest = shape.digest
            runner.run(plan)
            if on_device:
                torch.cuda.synchronize()

        return run


def _sample_heads(candidates: Sequence[OpenCandidate], backbone: Backbone) -> dict[str, HeadSample]:
    """By kind of head: one of the first bundle of that kind; others cost the same."""
    samples: dict[str, HeadSample] = {}
    for opened in candidates:
        if opened.bundle is not None and opened.head_kind not in samples:
            heads = [opened.bundle.head(layer, backbone) for layer in opened.bundle.layers]
            head = next(head for head in heads if head.kind == opened.head_kind)
            samples[opened.head_kind] = HeadSample(head, opened.exits_digest, sum(h.nbytes for h in heads))
    return samples


def outline_of(
    candidates: Sequence[OpenCandidate], settings: TimingSettings, precision: Precision
) -> Outline:
    """Of the backbone that the candidates share. What was loaded for it is let go."""
    return _first_layer(candidates, settings, precision)[2]


def _first_layer(
    candidates: Sequence[OpenCandidate], settings: TimingSettings, precision: Precision
) -> tuple[Backbone, dict[str, HeadSample], Outline]:
    beside = hold_what_pods_hold(candidates[0].checkpoint)
    backbone = _load(candidates, settings, precision)
    facts = measure(backbone, _engine(settings))
    del beside
    samples = _sample_heads(candidates, backbone)
    held = sum(sample.head.nbytes for sample in samples.values())
    context = backbone.config.context(settings.max_context)
    return backbone, samples, Outline(precision, facts, backbone.config.num_layers, context, held)


def _load(candidates: Sequence[OpenCandidate], settings: TimingSettings, precision: Precision) -> Backbone:
    """Its first layer."""
    checkpoint = candidates[0].checkpoint
    return load_first_layer(checkpoint, _engine(settings), settings.memory_mib, precision)


def _engine(settings: TimingSettings) -> EngineConfig:
    return EngineConfig(device=settings.device, dtype=settings.dtype, max_context=settings.max_context)
