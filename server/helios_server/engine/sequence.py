"""One request on its way through the engine: what it has produced, at which depth, and which pages it holds.

The scheduler moves it from state to state through the methods here; the engine appends tokens. It must touch
no tensor: everything is ids and counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from helios_server.engine.request import Served, Span
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.seen import Seen


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """All token counts and indices count tokens of prompt and output together, unless they say output."""

    def __init__(
        self,
        request_id: str,
        prompt_ids: tuple[int, ...],
        sampling: SamplingParams,
        max_tokens: int,
        requested_depth: int = 0,
        ordinal: int = 0,
        cache_salt: str = "",
    ) -> None:
        self.request_id = request_id
        self.prompt_ids = prompt_ids
        self.sampling = sampling
        self.seed = sampling.seed_for(request_id)
        self.max_tokens = max_tokens
        self.requested_depth = requested_depth
        self.ordinal = ordinal
        self.cache_salt = cache_salt
        self.drawn: bool | None = None  # whether its prompt is scored; None before its first look-up
        self.state = State.WAITING
        self.output_ids: list[int] = []
        self.seen = Seen(prompt_ids) if sampling.repetition_penalty != 1 else None
        self.spans: list[Span] = []
        self.depth = 0
        self.computed = 0
        self.pages: list[int] = []
        self.preemptions = 0
        # Of prefix reuse, see `prefixes.py`: hashes that it has computed; pages that others can find.
        self.contents: list[bytes] = []
        self.remembered = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def max_length(self) -> int:
        """Tokens whose keys and values it may come to hold: the last token of the output is never attended
        to.
        """
        return len(self.prompt_ids) + self.max_tokens - 1

    @property
    def pending(self) -> int:
        """Tokens whose keys and values do not stand yet; 1 while it decodes."""
        return len(self.prompt_ids) + len(self.output_ids) - self.computed

    def tokens(self, start: int, stop: int) -> tuple[int, ...]:
        """The ids in [start, stop), prompt and output together."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            return tuple(self.output_ids[start - prompt : stop - prompt])
        return self.prompt_ids[start:stop] + tuple(self.output_ids[: max(0, stop - prompt)])

    # -- what happens to it ----------------------------------------------------------------------------------

    def admit(self, depth: int) -> None:
        """Becomes a row.

        A sequence that has run before keeps its depth, so that its output goes on as it began.
        """
        self.state = State.RUNNING
        self.depth = self.depth or depth

    def count_look_up(self, hits: int) -> None:
        """`hits` of its tokens were found. What it finds of itself, once preempted, is not counted."""
        if not self.preemptions:
            self.prefix_queries, self.prefix_hits = self.length, hits

    def reuse(self, pages: list[int], tokens: int) -> None:
        """Its first `tokens` tokens stand in these pages, which others have filled. Before any are taken."""
        self.pages += pages
        self.computed = tokens
        self.remembered = len(pages)

    def advance(self, count: int) -> None:
        """`count` more tokens have keys and values."""
        self.computed += count

    def append(self, token_id: int, served: Served) -> None:
        """A new token; opens a span when something else produced it than the token before."""
        last = self.spans[-1].served if self.spans else None
        if last is not served and last != served:
            self.spans.append(Span(len(self.output_ids), served))
        self.output_ids.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)

    def preempt(self) -> list[int]:
        """Back to waiting; everything is computed again later. Returns the pages to give back."""
        self.state = State.WAITING
        self.preemptions += 1
        return self._release()

    def finish(self) -> list[int]:
        """Ends, whatever the reason. Returns the pages to give back."""
        self.state = State.FINISHED
        return self._release()

    def lower(self, depth: int) -> None:
        """Runs at most `depth` layers from the next token on; exact, because keys and values below stand
        already.
        """
        self.depth = min(self.depth, depth)

    def forget_depth(self) -> None:
        """Takes a new depth at the next admission: another model begins anew. Only while waiting."""
        self.depth = 0

    def move_pages(self, moves: Mapping[int, int]) -> None:
        """Follows pages that were moved, old id to new id."""
        self.pages = [moves.get(page, page) for page in self.pages]

    def _release(self) -> list[int]:
        pages, self.pages = self.pages, []
        self.computed = 0
        return pages
