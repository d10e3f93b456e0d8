"""All that serves at one moment: limits, model, weights, KV pool, scheduler and runner, and what they came
to.

Opened by the engine at start, changed by `changes.py` between steps. Lives in the engine thread; what other
threads read (`limits`, `model`, `capacity`) is replaced whole. It must hold no statistics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

import torch
from helios_contract.limits import Limits
from helios_contract.results import MemoryFacts
from helios_contract.telemetry import Capacity

from helios_server.engine import host_memory
from helios_server.engine.audit import audit_bytes
from helios_server.engine.heads import Heads, load_heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig, depths
from helios_server.engine.memory import MemoryPlan, context_tokens, limit_bytes, measure, plan_memory
from helios_server.engine.pages import PageAllocator
from helios_server.engine.request import Served
from helios_server.engine.runner import Runner
from helios_server.engine.scheduler import Scheduler
from helios_server.engine.sequence import Sequence
from helios_server.engine.watch import ExitInUse
from helios_server.errors import EngineFailed
from helios_server.models.backbone import Backbone
from helios_server.models.block import DecoderLayer
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.reading import reading
from helios_server.models.store import resolve
from helios_server.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Model:
    """What is known of the model that serves; it stays known while its weights are exchanged.

    fingerprint: of the checkpoint; tokenizer_digest: of tokenizer.json, "" without one; context: tokens of
    prompt and output that one request may have; limit, audit_bytes: bytes.
    """

    config: ModelConfig
    dtype: str
    fingerprint: str
    tokenizer: Tokenizer
    tokenizer_digest: str
    facts: MemoryFacts
    context: int
    audit_bytes: int

    def plan(self, limits: Limits, heads: Heads, device: torch.device) -> MemoryPlan:
        """What fits beside this model under the limits. Raises OutOfMemoryBudget."""
        layers = depths(limits, self.config.num_layers)[-1]
        audit = self.audit_bytes if limits.audit.percent else 0
        limit = limit_bytes(limits, device)
        return plan_memory(self.facts, limits, layers, self.context, limit, heads.nbytes, audit)


@dataclass(frozen=True)
class Loaded:
    """A model in memory, ready to serve under `limits`, whose revision and digests are filled in."""

    limits: Limits
    model: Model
    backbone: Backbone
    heads: Heads
    plan: MemoryPlan


def load_model(config: EngineConfig, limits: Limits, before: Model | None = None) -> Loaded:
    """Loads what the limits name. Raises HeliosError.

    One layer is loaded first: it tells what all of them take, so that a model that does not fit is refused
    before its other layers are read. before: the model that it takes the place of; a tokenizer that is the
    same is taken over, for two of them would be held while memory is measured.
    """
    with reading(limits.model_uri):
        return _load(config, limits, before)


def _load(config: EngineConfig, limits: Limits, before: Model | None) -> Loaded:
    found = resolve(
        limits.model_uri, limits.model_revision or None, volumes=config.volumes, offline=config.offline
    )
    limits = replace(limits, model_revision=found.revision)
    checkpoint = Checkpoint.open(found.path)
    depths(limits, checkpoint.config.num_layers)
    tokenizer = _tokenizer(checkpoint, before)
    backbone = Backbone.load(checkpoint, 1, config.device, config.dtype, config.max_context)
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    model = Model(
        config=checkpoint.config,
        dtype=backbone.numerics.dtype,
        fingerprint=checkpoint.fingerprint,
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_digest(checkpoint),
        facts=measure(backbone, config),
        context=context_tokens(backbone, config),
        audit_bytes=audit_bytes(backbone),
    )
    heads, limits = load_heads(backbone, limits, None, volumes=config.volumes, offline=config.offline)
    plan = model.plan(limits, heads, backbone.numerics.device)
    backbone.attach([backbone.load_layer(index) for index in range(1, plan.layers)])
    host_memory.trim()
    return Loaded(limits, model, backbone, heads, plan)


def _tokenizer(checkpoint: Checkpoint, before: Model | None) -> Tokenizer:
    digest = tokenizer_digest(checkpoint)
    if before is not None and digest and digest == before.tokenizer_digest:
        return before.tokenizer
    return Tokenizer.open(checkpoint.path)


def tokenizer_digest(checkpoint: Checkpoint) -> str:
    """Two models with the same one read the same token ids alike."""
    file = checkpoint.path / "tokenizer.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


class Serving:
    """See the module.

    kv_tokens: tokens that a request may count on; less than the pool while it is being reduced.
    """

    def __init__(self, config: EngineConfig, loaded: Loaded) -> None:
        self.config = config
        pages = PageAllocator(loaded.plan.pages, config.page_tokens)
        self.scheduler = Scheduler(pages, config.step_tokens, loaded.plan.rows, self.depth_for)
        self._install(loaded)

    def _install(self, loaded: Loaded) -> None:
        backbone, plan = loaded.backbone, loaded.plan
        self.model = loaded.model
        self.pool = KvPool(
            backbone.config,
            backbone.numerics,
            plan.layers,
            plan.pages,
            self.config.page_tokens,
            self._reserve(loaded),
        )
        self._hold(loaded.limits, backbone, loaded.heads, plan)

    def _hold(self, limits: Limits, backbone: Backbone, heads: Heads, plan: MemoryPlan) -> None:
        """From now on these serve."""
        self.limits = limits
        self._served: dict[int, Served] = {}
        self._thresholds = heads.thresholds(limits.exits_digest)
        self.kv_tokens = plan.pages * self.config.page_tokens
        self.runner: Runner | None = Runner(backbone, heads, self.pool, limits.exits_digest)
        self.scheduler.max_rows = plan.rows
        self.scheduler.admitting = True
        self.capacity = Capacity(
            layers_loaded=backbone.num_loaded,
            total_layers=self.num_layers,
            max_batch_size=plan.rows,
            kv_capacity_tokens=self.kv_tokens,
            weight_bytes=backbone.resident_bytes + heads.nbytes,
            kv_bytes=self.pool.nbytes,
            process_start_bytes=self.model.facts.process_start_bytes,
            activation_peak_bytes=plan.capacity.activation_bytes,
        )

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        """Layers of the whole model."""
        return self.model.config.num_layers

    @property
    def depths(self) -> tuple[int, ...]:
        """Legal depths in layers, ascending, the budget last."""
        return depths(self.limits, self.num_layers)

    @property
    def budget(self) -> int:
        """Layers held."""
        return self.depths[-1]

    @property
    def weights(self) -> Runner:
        """The runner, which alone holds the weights. Nobody may ask while the model is being exchanged."""
        if self.runner is None:
            raise EngineFailed("model", "its weights are being exchanged", "Report this")
        return self.runner

    def depth_for(self, sequence: Sequence) -> int:
        """At which depth a newcomer runs: what it asked for, as far as that is legal, else the budget."""
        if not sequence.requested_depth:
            return self.budget
        return max(
            (depth for depth in self.depths if depth <= sequence.requested_depth), default=self.depths[0]
        )

    def served(self, depth: int) -> Served:
        """By what a token at this depth is produced."""
        if depth not in self._served:
            limits, fingerprint = self.limits, self.model.fingerprint
            names = limits.candidate, limits.model_uri, limits.model_revision, fingerprint
            self._served[depth] = Served(*names, limits.exits_digest, depth)
        return self._served[depth]

    @property
    def exit_in_use(self) -> ExitInUse:
        """What detectors watch."""
        limits = self.limits
        served, audit = (limits.model_uri, limits.model_revision), limits.audit
        held, whole = self.budget, self.num_layers
        return ExitInUse(served, limits.exits_digest, held, whole, audit.quality, audit.confidence)

    def threshold(self, depth: int) -> float:
        """Confidence, in [0, 1], under which a token counts as a breach; none at full depth."""
        if depth == self.num_layers:
            return 0.0
        return self.limits.breach_threshold or self._thresholds.get(depth, 0.0)

    # -- how it changes, always between two steps ------------------------------------------------------------

    @torch.inference_mode()
    def resize(self, pages: int) -> None:
        """Changes the pages of the pool; those in use are moved below its new end."""
        self.pool.resize(pages, self.scheduler.resize(pages))
        self.kv_tokens = pages * self.config.page_tokens

    def adjust(self, limits: Limits, heads: Heads, plan: MemoryPlan, new_layers: Many[DecoderLayer]) -> None:
        """Other limits on the same weights. The pool has already given up the pages that new layers need."""
        backbone = self.weights.backbone
        backbone.truncate(plan.layers)
        backbone.attach(new_layers)
        self.pool.set_layers(plan.layers)
        self.resize(plan.pages)
        self._hold(limits, backbone, heads, plan)
        for sequence in (*self.scheduler.running, *self.scheduler.waiting):
            sequence.lower(plan.layers)
        host_memory.trim()

    def release(self) -> int:
        """Lets go of weights and KV. Running sequences wait, to be prefilled again; returns how many."""
        self.scheduler.admitting = False
        preempted = self.scheduler.preempt_all()
        self.runner = None
        self.pool.set_layers(0)
        host_memory.trim()
        return len(preempted)

    def exchange(self, loaded: Loaded) -> None:
        """Another model takes the place of the one released. Every sequence takes a new depth."""
        self._install(loaded)
        self.scheduler.resize(loaded.plan.pages)
        for sequence in self.scheduler.waiting:
            sequence.forget_depth()

    def _reserve(self, loaded: Loaded) -> int:
        """Pages that the shallowest legal depth would have: the pool may grow to that in place."""
        shallowest = depths(loaded.limits, loaded.model.config.num_layers)[0]
        limits = replace(loaded.limits, layer_budget=shallowest)
        return loaded.model.plan(limits, loaded.heads, loaded.backbone.numerics.device).pages
