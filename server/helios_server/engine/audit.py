"""The audit: scores prompts, which are human text, at every exit with every bundle, and at full depth.

Driven by the engine between steps, one small unit of work at a time. It starts from the hidden states that
the prefill left, and has the layers above the budget read one at a time by a thread of its own. Where a
quantised model serves, full depth is that of the model as published, all of which is read for a batch: as
often as a share of the process's CPU time allows. It keeps no text and decides nothing; an audit that fails
is left out, and fails nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_contract.telemetry import AS_PUBLISHED, OWN, AuditRow

from helios_server.engine import host_memory
from helios_server.engine.audit_batch import HEAD_ROWS, AuditBatch, PromptStates, Units
from helios_server.engine.brief import briefly
from helios_server.engine.cpu_share import SHARE, CpuShare
from helios_server.engine.reference import Reference, layer_elements
from helios_server.engine.runner import Runner
from helios_server.engine.sequence import Sequence
from helios_server.models.backbone import Backbone
from helios_server.models.tokenizer import Tokenizer

T = TypeVar("T")
logger = logging.getLogger(__name__)

MIN_TOKENS = 8
MAX_TOKENS = 512
"""Of a prompt: its beginning is scored, which needs nothing of the rest."""
BATCH_PROMPTS, BATCH_TOKENS = 8, 1024
WAIT_SECONDS = 2.0
SELDOM_SECONDS = 3600.0
"""Of the process's CPU time, between two batches: should it come to more, audits do without the model as
published.
"""
STATE_TOKENS = 4096
"""Hidden states held for audits, all layers together; prompts beyond that are not audited."""
_SOON_SECONDS = 0.01
_GOLDEN_RATIO = 0.6180339887498949


def audit_bytes(backbone: Backbone) -> int:
    """Peak of what audits take beside serving: a layer being read and packed, states, one unit's logits."""
    config, size = backbone.config, backbone.numerics.activations.itemsize
    layer = backbone.layer_bytes
    if backbone.precision != Precision():  # one as published is read
        layer = max(layer, layer_elements(backbone) * backbone.numerics.weights.itemsize)
    states = STATE_TOKENS * config.hidden_size * size
    batch = BATCH_TOKENS * (2 * config.hidden_size + 2 * config.kv_size) * size
    logits = HEAD_ROWS * config.vocab_size * max(4, size)
    return 2 * layer + states + batch + logits


def chosen(ordinal: int, percent: int) -> bool:
    """Whether a request is audited: evenly spread, and out of step with any short pattern in the traffic."""
    return ordinal * _GOLDEN_RATIO % 1 < percent / 100


def drawn(sequence: Sequence, limits: Limits) -> bool:
    """Whether a request's prompt is to be scored. Asked before its prompt is looked for in the cache: were
    only those scored that are not found there, quality would be that of rare prompts.
    """
    long_enough = len(sequence.prompt_ids) >= MIN_TOKENS
    return long_enough and sequence.ordinal > 0 and chosen(sequence.ordinal, limits.audit.percent)


def _is_full(prompts: Collection[PromptStates]) -> bool:
    """Whether they make a batch."""
    return len(prompts) >= BATCH_PROMPTS or sum(prompt.tokens for prompt in prompts) >= BATCH_TOKENS


class Auditor:
    """Follows the prompts that are audited from admission to their row.

    on_row: gets each AuditRow; on_read: called in another thread when there may be work again. skipped:
    prompts whose audit failed, since boot; passed_over: those drawn that were not taken, because audits
    would have come to more than their share of the process's CPU time.
    """

    def __init__(
        self,
        on_row: Callable[[AuditRow], None],
        on_read: Callable[[], None],
        share: CpuShare | None = None,
    ) -> None:
        self.captures: dict[Sequence, PromptStates] = {}
        self.skipped = self.passed_over = 0
        self._share = share or CpuShare()
        self._quantised = False
        self._seconds = {AS_PUBLISHED: 0.0, OWN: 0.0}  # of CPU, that a batch takes
        self._spent_before = 0.0
        self._on_row = on_row
        self._on_read = on_read
        self._pending: deque[PromptStates] = deque()
        self._batch: AuditBatch | None = None
        self._units: Units | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="helios-audit-reads")
        self._batch_of = AS_PUBLISHED
        self._said = ""

    def follow(self, precision: Precision, reading_seconds: float) -> None:
        """What serves from now on. reading_seconds: of CPU, that reading the whole model takes."""
        self._quantised = precision != Precision()
        self._seconds = {AS_PUBLISHED: reading_seconds, OWN: 0.0}

    @property
    def reference(self) -> str:
        """Whose full depth a batch is compared with: the model as published, unless reading that would take
        so much of the process's CPU time that a batch would hardly ever come.
        """
        kept_up = not self._quantised or self._seconds[AS_PUBLISHED] <= SHARE * SELDOM_SECONDS
        return AS_PUBLISHED if kept_up else OWN

    def takes(self) -> bool:
        """Whether a prompt that was drawn will be scored; one that will not is counted. Nothing of the prompt
        decides it.
        """
        waiting = (*self.captures.values(), *self._pending)
        takes = not self._quantised or (not self._batch and not _is_full(waiting) and self._may_begin())
        self.passed_over += not takes
        return takes

    @property
    def cpu_seconds(self) -> float:
        """Taken by audits since boot, at most: threads that may have done other work count whole."""
        return self._share.total

    def wakes_in(self, now: float) -> float | None:
        """Seconds until a batch may begin that waits for company; None: nothing waits for time to pass."""
        if self._batch or not self._pending or not self._reads_all() or not self._may_begin():
            return None
        return max(_SOON_SECONDS, self._pending[0].arrived + self._patience() - now)

    def _reads_all(self) -> bool:
        """Whether a batch reads the whole model, as published, however few its prompts are."""
        return self._quantised and self.reference == AS_PUBLISHED

    def _patience(self) -> float:
        """Seconds that a batch waits to be full. No other one could begin before so much CPU time is spent as
        makes the next one's share, so one that reads the whole model waits as long.
        """
        return self._seconds[AS_PUBLISHED] / SHARE if self._reads_all() else WAIT_SECONDS

    def _may_begin(self) -> bool:
        """Whether another batch stays within the share, which a quantised model is held to."""
        return not self._quantised or self._share.allows(self._seconds[self.reference])

    # -- prompts come and go ---------------------------------------------------------------------------------

    def admit(self, sequence: Sequence, limits: Limits, now: float) -> None:
        """A request got a row: its prompt is captured if it was drawn and there is room."""
        if not sequence.drawn or not drawn(sequence, limits):  # fewer may be drawn by now, never others
            return
        if sequence in self.captures or sequence.computed or sequence.output_ids:
            return
        ids = sequence.prompt_ids[:MAX_TOKENS]
        exits = [layer for layer in limits.exit_layers if layer < sequence.depth]
        layers = (*sorted(exits), sequence.depth)
        states = PromptStates(sequence.ordinal, ids, layers, now)
        held = sum(other.size for other in (*self.captures.values(), *self._pending))
        held += self._batch.size if self._batch else 0
        if held + states.size <= STATE_TOKENS:
            self.captures[sequence] = states

    def computed(self, sequence: Sequence) -> None:
        """More tokens of a sequence were computed: its prompt may be complete."""
        states = self.captures.get(sequence)
        if states and sequence.computed >= states.tokens:
            self._pending.append(self.captures.pop(sequence))

    def drop(self, sequence: Sequence) -> None:
        """The request ended, perhaps before its prompt was complete."""
        self.captures.pop(sequence, None)

    def forget(self) -> None:
        """Another model comes: nothing captured means anything any more."""
        self.captures.clear()
        self._pending.clear()
        self._batch = self._units = None

    def wait_for_reader(self) -> None:
        """Any thread: returns when no layer is being read, so that its memory is counted nowhere."""
        self._reader.submit(lambda: None).result()

    def close(self) -> None:
        """Reads no more."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    # -- work ------------------------------------------------------------------------------------------------

    def work(self, weights: Runner, tokenizer: Tokenizer, limits: Limits, now: float, idle: bool) -> bool:
        """Does what may be done between two steps: a unit, or a few when prompts pile up.

        False: nothing to do, or nothing before a layer is read.
        """
        if self._batch is None and not self._pending:
            return False
        with torch.inference_mode(), self._share.counted(torch.get_num_threads(), held=self._quantised):
            return self._work(weights, tokenizer, limits, now, idle)

    def _work(self, weights: Runner, tokenizer: Tokenizer, limits: Limits, now: float, idle: bool) -> bool:
        for _ in range(1 + min(3, len(self._pending) // 4)):
            if self._batch is None and not self._begin(weights, tokenizer, limits, now, idle):
                return False
            if self._batch and self._batch.waits:
                return False
            self._advance()
        return True

    def _advance(self) -> None:
        """One unit of the batch under way."""
        try:
            next(self._units or iter(()))
        except StopIteration:
            self._seconds[self._batch_of] = self._share.spent - self._spent_before
            self._end_batch()
        except Exception as error:
            self._skip(error)
            self._end_batch()

    def _skip(self, error: Exception) -> None:
        """Requests do not depend on their audits. Said once, counted always."""
        self.skipped += self._batch.prompts if self._batch else 0
        if str(error) != self._said:
            self._said = str(error)
            logger.warning("audits are skipped: %s", error or type(error).__name__)

    def _end_batch(self) -> None:
        self._batch = self._units = None
        host_memory.trim()  # or what audits leave in the heap adds to what steps leave there

    def _begin(self, weights: Runner, tokenizer: Tokenizer, limits: Limits, now: float, idle: bool) -> bool:
        """Starts a batch when one is full, its oldest prompt has waited, or there is nothing else to do."""
        if not self._pending:
            return False
        waited = now - self._pending[0].arrived > self._patience()
        full = _is_full(self._pending) if self._reads_all() else len(self._pending) >= BATCH_PROMPTS
        alone = idle and not self._reads_all()
        if not (alone or waited or full) or not self._may_begin():
            return False
        prompts = self._take_batch()
        digests = dict.fromkeys((limits.exits_digest, *(bundle.digest for bundle in limits.audit.bundles)))
        self._batch_of, self._spent_before = self.reference, self._share.spent
        published = self._quantised and self._batch_of == AS_PUBLISHED
        reference = Reference(weights.backbone) if published else None
        exits = tuple(digests), limits.exit_layers
        self._batch = AuditBatch(prompts, weights, *exits, self._read, reference, self._batch_of)
        self._units = self._audit(self._batch, tokenizer)
        return True

    def _read(self, load: Callable[[], T]) -> Future[T]:
        """In the thread that may wait for a volume."""
        future = self._reader.submit(briefly, self._counted, load)
        future.add_done_callback(lambda _: self._on_read())
        return future

    def _counted(self, load: Callable[[], T]) -> T:
        with self._share.counted(held=self._quantised):
            return load()

    def _take_batch(self) -> list[PromptStates]:
        """The oldest prompts whose states stand at the same layers."""
        layers, tokens = self._pending[0].layers, 0
        prompts: list[PromptStates] = []
        for prompt in tuple(self._pending):
            fits = not prompts or tokens + prompt.tokens <= BATCH_TOKENS
            if prompt.layers == layers and fits and len(prompts) < BATCH_PROMPTS:
                prompts.append(prompt)
                tokens += prompt.tokens
                self._pending.remove(prompt)
        return prompts

    def _audit(self, batch: AuditBatch, tokenizer: Tokenizer) -> Units:
        yield from batch.run()
        for row in tuple(batch.rows(tokenizer)):
            self._on_row(row)
