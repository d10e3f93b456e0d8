"""The audit: scores prompts, which are human text, at every exit with every bundle, and at full depth.

Driven by the engine between steps, one small unit of work at a time, and rather while few requests are here
than while many are. It starts from the hidden states that
the prefill left, and has the layers above the budget read one at a time by a thread of its own. Where a
quantised model serves, full depth is its own, and as often as a share of the process's CPU time allows that
of the model as published, all of which is read for a batch. It keeps no text and decides nothing; an audit
that fails is left out, and fails nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from helios_contract.haste import hastened
from helios_contract.limits import Limits
from helios_contract.serves import Precision
from helios_contract.telemetry import AS_PUBLISHED, OWN, AuditRow

from helios_server.engine import host_memory
from helios_server.engine.audit_batch import HEAD_ROWS, AuditBatch, PromptStates, Units
from helios_server.engine.brief import briefly
from helios_server.engine.cpu_share import SHARE, CpuShare
from helios_server.engine.lull import Lull
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
WAIT_SECONDS = 10.0
LULL_SECONDS = 10.0
"""That audits are put off at most, for fewer requests to be here."""
SELDOM_SECONDS = 7200.0
"""Of the process's CPU time, between two batches that read the model as published: should it come to more,
audits do without it.
"""
COMPANY_SECONDS = 60.0
"""That prompts wait at most, for others that the model as published is then read for as well."""
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


def drawn(sequence: Sequence, limits: Limits, *, hasty: bool) -> bool:
    """Whether a request's prompt is to be scored. Asked before its prompt is looked for in the cache: were
    only those scored that are not found there, quality would be that of rare prompts. hasty: audits are
    waited for.
    """
    percent = hastened(limits.audit.percent) if hasty else limits.audit.percent
    long_enough = len(sequence.prompt_ids) >= MIN_TOKENS
    return long_enough and sequence.ordinal > 0 and chosen(sequence.ordinal, percent)


def _is_full(prompts: Collection[PromptStates]) -> bool:
    """Whether they make a batch."""
    return len(prompts) >= BATCH_PROMPTS or sum(prompt.tokens for prompt in prompts) >= BATCH_TOKENS


class Auditor:
    """Follows the prompts that are audited from admission to their row.

    on_row: gets each AuditRow; on_read: called in another thread when there may be work again. skipped:
    prompts whose audit failed, since boot. share: of the process's CPU time, for reading the model as
    published beside a quantised one. hasty: rows are waited for, whoever else is here.
    """

    def __init__(
        self,
        on_row: Callable[[AuditRow], None],
        on_read: Callable[[], None],
        share: CpuShare | None = None,
    ) -> None:
        self.captures: dict[Sequence, PromptStates] = {}
        self.skipped = 0
        self._share = share or CpuShare()
        self._quantised = False
        self._reading_seconds = 0.0  # of CPU, that a batch takes for which the whole model is read
        self._spent_before = 0.0
        self._on_row = on_row
        self._on_read = on_read
        self._pending: deque[PromptStates] = deque()
        self._batch: AuditBatch | None = None
        self._units: Units | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="helios-audit-reads")
        self._reads_all = False  # the batch under way
        self._lull = Lull()
        self._put_off_at: float | None = None
        self.hasty = False
        self._said = ""

    def follow(self, precision: Precision, reading_seconds: float) -> None:
        """What serves from now on. reading_seconds: of CPU, that reading the whole model takes."""
        self._quantised = precision != Precision()
        self._reading_seconds = reading_seconds

    @property
    def cpu_seconds(self) -> float:
        """Taken by audits since boot, at most: threads that may have done other work count whole."""
        return self._share.total

    def wakes_in(self, now: float) -> float | None:
        """Seconds until a batch may begin that waits for company; None: nothing waits for time to pass."""
        if self._batch or not self._pending or not self._may_read_all():
            return None
        return max(_SOON_SECONDS, self._pending[0].arrived + self._patience(True) - now)

    def _may_read_all(self) -> bool:
        """Whether the next batch is compared with the model as published, where a quantised one serves: all
        of it is read, however few the prompts are.
        """
        if not self._quantised or self._reading_seconds > SHARE * SELDOM_SECONDS:
            return False
        return self._share.allows(self._reading_seconds)

    def _patience(self, reads_all: bool) -> float:
        """Seconds that a batch waits to be full. For one that reads the whole model there is time: until the
        next one could begin the process has to spend what makes its share.
        """
        return min(COMPANY_SECONDS, self._reading_seconds / SHARE) if reads_all else WAIT_SECONDS

    # -- prompts come and go ---------------------------------------------------------------------------------

    def admit(self, sequence: Sequence, limits: Limits, now: float) -> None:
        """A request got a row: its prompt is captured if it was drawn and there is room."""
        if not sequence.drawn or not drawn(sequence, limits, hasty=True):  # fewer by now, never others
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

    def work(self, weights: Runner, tokenizer: Tokenizer, limits: Limits, now: float, requests: int) -> bool:
        """Does what may be done between two steps: a unit, or a few when prompts pile up. requests: that run
        or wait.

        False: nothing to do, nothing before a layer is read, or nothing while so many requests are here.
        """
        self._lull.observe(requests, now)
        if self._batch is None and not self._pending:
            return False
        if self._is_put_off(now):
            return False
        idle = requests == 0
        with torch.inference_mode():
            for _ in range(1 + min(3, len(self._pending) // 4)):
                if self._batch is None and not self._begin(weights, tokenizer, limits, now, idle):
                    return False
                if self._batch and self._batch.waits:
                    return False
                with self._share.counted(torch.get_num_threads(), held=self._reads_all):
                    ended = self._advance()
                if ended:
                    self._end_batch()
        return True

    def _is_put_off(self, now: float) -> bool:
        """Until fewer requests are here; a burst that lasts puts nothing off for ever."""
        if self._lull or self.hasty:
            self._put_off_at = None
            return False
        if self._put_off_at is None:
            self._put_off_at = now
        return now - self._put_off_at < LULL_SECONDS

    def _advance(self) -> bool:
        """One unit of the batch under way. Whether it was the last one."""
        try:
            next(self._units or iter(()))
        except StopIteration:
            return True
        except Exception as error:
            self._skip(error)
            self._reads_all = False  # or what a broken batch took would stand for what a whole one takes
            return True
        return False

    def _skip(self, error: Exception) -> None:
        """Requests do not depend on their audits. Said once, counted always."""
        self.skipped += self._batch.prompts if self._batch else 0
        if str(error) != self._said:
            self._said = str(error)
            logger.warning("audits are skipped: %s", error or type(error).__name__)

    def _end_batch(self) -> None:
        if self._reads_all:
            self._reading_seconds = self._share.spent - self._spent_before
        self._batch = self._units = None
        host_memory.trim()  # or what audits leave in the heap adds to what steps leave there

    def _begin(self, weights: Runner, tokenizer: Tokenizer, limits: Limits, now: float, idle: bool) -> bool:
        """Starts a batch when one is full, its oldest prompt has waited, or there is nothing else to do."""
        if not self._pending:
            return False
        reads_all = self._may_read_all()
        waited = now - self._pending[0].arrived > self._patience(reads_all)
        if not (waited or _is_full(self._pending) or (idle and not reads_all)):
            return False
        prompts = self._take_batch()
        digests = dict.fromkeys((limits.exits_digest, *(bundle.digest for bundle in limits.audit.bundles)))
        self._reads_all, self._spent_before = reads_all, self._share.spent
        reference = Reference(weights.backbone) if reads_all else None
        name = OWN if self._quantised and not reads_all else AS_PUBLISHED
        exits = tuple(digests), limits.exit_layers
        self._batch = AuditBatch(prompts, weights, *exits, self._read, reference, name)
        self._units = self._audit(self._batch, tokenizer)
        return True

    def _read(self, load: Callable[[], T]) -> Future[T]:
        """In the thread that may wait for a volume."""
        future = self._reader.submit(briefly, self._counted, load)
        future.add_done_callback(lambda _: self._on_read())
        return future

    def _counted(self, load: Callable[[], T]) -> T:
        with self._share.counted(held=self._reads_all):
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
