"""All that serves at one moment: limits, model, weights, KV pool, scheduler and runner, and what they came
to.

Opened by the engine at start, changed by `changes.py` between steps. Lives in the engine thread; what other
threads read (`limits`, `model`, `capacity`) is replaced whole. It must hold no statistics.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from helios_contract.limits import Limits
from helios_contract.results import MemoryFacts
from helios_contract.serves import Precision
from helios_contract.telemetry import Capacity

from helios_server.engine import exit_mode, host_memory
from helios_server.engine.audit import audit_bytes, drawn
from helios_server.engine.heads import Heads, load_heads
from helios_server.engine.kept import Kept
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig, check_process, depths
from helios_server.engine.memory import (
    MemoryPlan,
    context_tokens,
    limit_bytes,
    load_first_layer,
    measure,
    plan_memory,
)
from helios_server.engine.pages import PageAllocator
from helios_server.engine.prefixes import Prefixes
from helios_server.engine.request import Served
from helios_server.engine.runner import Runner
from helios_server.engine.scheduler import Scheduler
from helios_server.engine.sequence import Sequence
from helios_server.engine.token_exit import runner_for
from helios_server.engine.watch import ExitInUse
from helios_server.errors import CheckpointError, EngineFailed
from helios_server.models.backbone import Backbone, Layer
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.reading import reading
from helios_server.models.store import resolve
from helios_server.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Model:
    """What is known of the model that serves; it stays known while its weights are exchanged.

    fingerprint: of the checkpoint; tokenizer_digest: of tokenizer.json, "" without one; context: tokens of
    prompt and output that one request may have; limit, audit_bytes: bytes; reading_seconds: of CPU, that
    reading all layers takes.
    """

    config: ModelConfig
    dtype: str
    precision: Precision
    fingerprint: str
    tokenizer: Tokenizer
    tokenizer_digest: str
    facts: MemoryFacts
    context: int
    audit_bytes: int
    reading_seconds: float = 0.0

    def plan(self, limits: Limits, heads: Heads, device: torch.device) -> MemoryPlan:
        """What fits beside this model under the limits. Raises OutOfMemoryBudget."""
        layers = depths(limits, self.config.num_layers)[-1]
        audit = self.audit_bytes if limits.audit.percent else 0
        limit = limit_bytes(limits, device)
        return plan_memory(self.facts, limits, layers, self.context, limit, heads.nbytes, audit)


@dataclass(frozen=True)
class Loaded:
    """A model in memory, ready to serve under `limits`, whose revision and digests are filled in.

    reserved: pages that the shallowest legal depth would have: the pool may grow to that in place.
    """

    limits: Limits
    model: Model
    backbone: Backbone
    heads: Heads
    plan: MemoryPlan
    reserved: int


def load_model(
    config: EngineConfig,
    limits: Limits,
    before: Model | None = None,
    same: bool = False,
    kept: Kept | None = None,
) -> Loaded:
    """Loads what the limits name. Raises HeliosError.

    One layer is loaded first: it tells what all of them take, so that a model that does not fit is refused
    before its other layers are read. before: the model that it takes the place of; a tokenizer that is the
    same is taken over, for two of them would be held while memory is measured. same: it must be that model.
    kept: what is left of its weights, which goes layer by layer as others come.
    """
    with reading(limits.model_uri):
        return _load(config, limits, before, same, kept or Kept())


def _load(config: EngineConfig, limits: Limits, before: Model | None, same: bool, kept: Kept) -> Loaded:
    check_process(limits, config)
    found = resolve(
        limits.model_uri, limits.model_revision or None, volumes=config.volumes, offline=config.offline
    )
    limits = replace(limits, model_revision=found.revision)
    checkpoint = Checkpoint.open(found.path, found.named)
    *_, budget = depths(limits, checkpoint.config.num_layers)
    exit_mode.check_depths(limits, budget, checkpoint.config.num_layers)
    if before is not None and same:
        check_same(checkpoint, before)
    tokenizer = _tokenizer(checkpoint, before)
    kept.give_up_tables(budget)
    native = not exit_mode.is_token(limits)
    backbone = load_first_layer(checkpoint, config, limits.memory_mib, limits.precision, native=native)
    kept.exchange(backbone.layers[0])
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    model = Model(
        config=checkpoint.config,
        dtype=backbone.numerics.dtype,
        precision=limits.precision,
        fingerprint=checkpoint.fingerprint,
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_digest(checkpoint),
        facts=measure(backbone, config, beside=kept.nbytes),
        context=context_tokens(backbone.config, config),
        audit_bytes=audit_bytes(backbone),
    )
    heads, limits = load_heads(backbone, limits, None, volumes=config.volumes, offline=config.offline)
    plan = model.plan(limits, heads, backbone.numerics.device)
    began = time.thread_time()
    for index in range(1, plan.layers):
        backbone.attach([kept.next(backbone, index)])
    seconds = (time.thread_time() - began) / max(1, plan.layers - 1) * model.config.num_layers
    model = replace(model, reading_seconds=seconds)
    backbone.source.settle()
    host_memory.trim()
    return loaded(limits, model, backbone, heads, plan)


def loaded(limits: Limits, model: Model, backbone: Backbone, heads: Heads, plan: MemoryPlan) -> Loaded:
    """Of these, with what the pool may grow to."""
    shallowest = replace(limits, layer_budget=depths(limits, model.config.num_layers)[0])
    reserved = model.plan(shallowest, heads, backbone.numerics.device).pages
    return Loaded(limits, model, backbone, heads, plan, reserved)


def check_same(checkpoint: Checkpoint, served: Model) -> None:
    """Raises CheckpointError where the files are no longer those of the model that served."""
    same_weights = checkpoint.fingerprint == served.fingerprint
    if not same_weights or tokenizer_digest(checkpoint) != served.tokenizer_digest:
        file = "weights" if not same_weights else "tokenizer"
        problem = f"holds other {file} than those that served"
        raise CheckpointError(str(checkpoint.path), problem, "Put the model's files back")


def _tokenizer(checkpoint: Checkpoint, before: Model | None) -> Tokenizer:
    digest = tokenizer_digest(checkpoint)
    if before is not None and digest and digest == before.tokenizer_digest:
        return before.tokenizer.beside(checkpoint.path)
    return Tokenizer.open(checkpoint.path)


def tokenizer_digest(checkpoint: Checkpoint) -> str:
    """Two models with the same one read the same token ids alike."""
    file = checkpoint.path / "tokenizer.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


class Serving:
    """See the module.

    kv_tokens, context, vocabulary: tokens and token ids that a request may count on; less than the pool and
    the model have while what comes has less. whole: no change was broken off in the middle. known: what
    models have taken that served here, by fingerprint and precision. awaits_audits: traffic has changed, and
    what that means few audits say so far.
    """

    def __init__(self, config: EngineConfig, loaded: Loaded) -> None:
        self.config = config
        pages = PageAllocator(loaded.plan.pages, config.page_tokens)
        prefixes = Prefixes(pages, config.prefix_caching)
        self.scheduler = Scheduler(
            pages, config.step_tokens, loaded.plan.rows, self.depth_for, prefixes, self.drawn
        )
        self.awaits_audits = False
        self.runner: Runner | None = None
        self.known: dict[tuple[str, Precision], MemoryFacts] = {}
        self._install(loaded)

    def _install(self, loaded: Loaded) -> None:
        backbone, plan = loaded.backbone, loaded.plan
        pool = KvPool(
            backbone.config,
            backbone.numerics,
            plan.layers,
            plan.pages,
            self.config.page_tokens,
            loaded.reserved,
        )
        self._hold(loaded.limits, loaded.model, backbone, loaded.heads, plan, pool)

    def _hold(
        self,
        limits: Limits,
        model: Model,
        backbone: Backbone,
        heads: Heads,
        plan: MemoryPlan,
        pool: KvPool,
    ) -> None:
        """From now on these serve. What can fail comes first: others see all of it or nothing."""
        thresholds = heads.thresholds(limits.exits_digest)
        runner = runner_for(limits, backbone, heads, pool)
        capacity = Capacity(
            layers_loaded=backbone.num_loaded,
            total_layers=model.config.num_layers,
            max_batch_size=plan.rows,
            kv_capacity_tokens=plan.pages * self.config.page_tokens,
            weight_bytes=backbone.resident_bytes + heads.nbytes,
            kv_bytes=pool.nbytes,
            process_start_bytes=model.facts.process_start_bytes,
            activation_peak_bytes=plan.capacity.activation_bytes,
        )
        self.limits, self.model, self.pool, self.capacity = limits, model, pool, capacity
        self.runner, self._thresholds = runner, thresholds
        self._served: dict[int, Served] = {}
        self.scheduler.max_rows = plan.rows
        self.known[model.fingerprint, model.precision] = model.facts
        self.scheduler.prefixes.serve(model.fingerprint, model.dtype, str(model.precision))
        self.whole = True
        self._take_requests()

    def _take_requests(self) -> None:
        """As many and as long as what serves has room for."""
        self.kv_tokens = self.pool.pages * self.config.page_tokens
        self.context, self.vocabulary = self.model.context, self.model.config.vocab_size
        self.scheduler.admitting = True

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

    def drawn(self, sequence: Sequence) -> bool:
        """Whether a newcomer's prompt is scored."""
        return drawn(sequence, self.limits, hasty=self.awaits_audits)

    def served(self, depth: int) -> Served:
        """By what a token at this depth is produced."""
        if depth not in self._served:
            limits, fingerprint = self.limits, self.model.fingerprint
            names = limits.candidate, limits.model_uri, limits.model_revision, fingerprint
            precision = limits.weight_dtype, limits.kv_cache_dtype
            self._served[depth] = Served(*names, limits.exits_digest, depth, *precision, limits.exit_mode)
        return self._served[depth]

    @property
    def exit_in_use(self) -> ExitInUse:
        """What detectors watch."""
        limits = self.limits
        served, audit = (limits.model_uri, limits.model_revision), limits.audit
        held, whole = self.budget, self.num_layers
        baselines = audit.quality, audit.confidence
        return ExitInUse(served, limits.exits_digest, held, whole, *baselines, limits.precision)

    def threshold(self, depth: int) -> float:
        """Confidence, in [0, 1], under which a token counts as a breach; none at full depth."""
        if depth == self.num_layers:
            return 0.0
        return self.limits.breach_threshold or self._thresholds.get(depth, 0.0)

    # -- how it changes, always between two steps ------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What is broken off in the middle runs no step any more: it must be loaded anew."""
        try:
            yield
        except BaseException:
            self.whole = self.scheduler.admitting = False
            self._stop_all()
            raise

    def _stop_all(self) -> int:
        """Running sequences wait; what pages held means nothing any more. Returns how many wait."""
        preempted = self.scheduler.preempt_all()
        self.scheduler.prefixes.clear()
        self.runner = None
        return len(preempted)

    def resize(self, pages: int) -> None:
        """Changes the pages of the pool; those in use are moved below its new end."""
        with self.changing():
            self._resize(pages)

    @torch.inference_mode()
    def _resize(self, pages: int) -> None:
        self.pool.resize(pages, self.scheduler.resize(pages))
        self.kv_tokens = pages * self.config.page_tokens

    def promise(self, context: int, vocabulary: int) -> None:
        """New requests may count on no more: a model comes that has `context` tokens and `vocabulary` ids."""
        self.context, self.vocabulary = min(self.context, context), min(self.vocabulary, vocabulary)

    def reopen(self, pages: int) -> None:
        """What a change had taken back, before it was refused, is there again."""
        if pages != self.pool.pages:
            self.resize(pages)
        self._take_requests()

    def adjust(self, limits: Limits, heads: Heads, plan: MemoryPlan, new_layers: Many[Layer]) -> None:
        """Other limits on the same weights. The pool has already given up the pages that new layers need."""
        backbone = self.weights.backbone
        with self.changing():
            backbone.truncate(plan.layers)
            backbone.attach(new_layers)
            self.scheduler.prefixes.lower(plan.layers)
            self.pool.set_layers(plan.layers)
            self._resize(plan.pages)
            self._hold(limits, self.model, backbone, heads, plan, self.pool)
            for sequence in (*self.scheduler.running, *self.scheduler.waiting):
                sequence.lower(plan.layers)
            host_memory.trim()

    def release(self) -> int:
        """Lets go of weights and KV. Running sequences wait, to be prefilled again; returns how many."""
        with self.changing():
            self.scheduler.admitting = False
            preempted = self._stop_all()
            self.pool.set_layers(0)
            host_memory.trim()
        return preempted

    def exchange(self, loaded: Loaded, anew: bool = True) -> None:
        """A model takes the place of the one released. anew: every sequence takes a new depth."""
        with self.changing():
            self._install(loaded)
            self.scheduler.resize(loaded.plan.pages)
            if anew:
                for sequence in self.scheduler.waiting:
                    sequence.forget_depth()
