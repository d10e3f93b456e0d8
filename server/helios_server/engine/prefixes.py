"""Which pages hold which tokens, so that what begins as an earlier text did is not computed again.

Asked by the scheduler when it admits a sequence, and told by it of every page that is full. It sees ids and
hashes of tokens, and must touch no tensor: a page that is found is read where it lies.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack

from helios_server.engine.pages import PageAllocator
from helios_server.engine.sequence import Sequence

_DIGEST_BYTES = 32


@dataclass(slots=True)
class _Kept:
    """A full page. depth: layers in which its keys and values stand."""

    content: bytes
    page: int
    depth: int


class Prefixes:
    """Of the pages that `pages` hands out. enabled: False finds nothing and keeps nothing.

    The content of a page is a hash of the page before it and of its own tokens; before the first one stand
    the model, its precision and the request's salt. Equal contents are equal keys and values, in as many
    layers as both have. The hash is keyed by a secret of this process: nobody can make two texts meet.
    """

    def __init__(self, pages: PageAllocator, enabled: bool = True) -> None:
        self.enabled = enabled
        self._pages = pages
        self._key = secrets.token_bytes(blake2b.MAX_KEY_SIZE)
        self._served: tuple[str, ...] = ()
        self._by_content: dict[bytes, _Kept] = {}
        self._by_page: dict[int, _Kept] = {}
        pages.on_lost = self._forget

    def find(self, sequence: Sequence, depth: int) -> list[int]:
        """The pages that hold the longest beginning of a sequence in at least `depth` layers.

        Its last token is never among what they hold: it is computed, for the logits that it yields.
        """
        found: list[int] = []
        self._begin(sequence)
        for index in range((sequence.length - 1) // self._pages.page_tokens):
            kept = self._by_content.get(self._content(sequence, index))
            if kept is None or kept.depth < depth:
                break
            found.append(kept.page)
        return found

    def remember(self, sequence: Sequence) -> None:
        """What a running sequence has computed can be found from now on, as far as it fills pages."""
        full = sequence.computed // self._pages.page_tokens if self.enabled else 0
        if full <= sequence.remembered:
            return
        self._begin(sequence)
        for index in range(sequence.remembered, full):
            self._keep(_Kept(self._content(sequence, index), sequence.pages[index], sequence.depth))
        sequence.remembered = full

    # -- what changes ----------------------------------------------------------------------------------------

    def serve(self, *served: str) -> None:
        """What computes from now on: the model, its precision. Another one begins with nothing, and nothing
        may run when it comes.
        """
        if served != self._served:
            self.clear()
            self._served = served

    def clear(self) -> None:
        """What pages held is gone."""
        for page in self._by_page:
            self._pages.drop(page)
        self._by_page.clear()
        self._by_content.clear()

    def lower(self, depth: int) -> None:
        """Layers above `depth` are gone, also should they come back."""
        for kept in self._by_page.values():
            kept.depth = min(kept.depth, depth)

    def move(self, moves: Mapping[int, int]) -> None:
        """Follows pages that were moved, old id to new id."""
        for kept in self._by_page.values():
            kept.page = moves.get(kept.page, kept.page)
        self._by_page = {kept.page: kept for kept in self._by_page.values()}

    def _keep(self, new: _Kept) -> None:
        """Of two pages with one content the deeper one stays, else the first."""
        known = self._by_content.get(new.content)
        if known and known.depth >= new.depth:
            return
        if known:
            self._forget(known.page)
            self._pages.drop(known.page)
        self._by_content[new.content] = self._by_page[new.page] = new
        self._pages.keep(new.page)

    def _forget(self, page: int) -> None:
        del self._by_content[self._by_page.pop(page).content]

    # -- contents --------------------------------------------------------------------------------------------

    def _begin(self, sequence: Sequence) -> None:
        """What stands before the first page of a sequence; with another model its pages are other ones."""
        text = "\0".join((*self._served, sequence.cache_salt))
        before = self._hash(text.encode("utf-8", "surrogatepass"), b"before")
        if sequence.contents[:1] != [before]:
            sequence.contents = [before]

    def _content(self, sequence: Sequence, index: int) -> bytes:
        """Of one of its full pages. It stays with the sequence, which may be asked for at every step."""
        known, tokens = sequence.contents, self._pages.page_tokens
        for start in range((len(known) - 1) * tokens, (index + 1) * tokens, tokens):
            ids = sequence.tokens(start, start + tokens)
            known.append(self._hash(known[-1] + pack(f"<{tokens}q", *ids), b"page"))
        return known[index + 1]

    def _hash(self, data: bytes, kind: bytes) -> bytes:
        return blake2b(data, digest_size=_DIGEST_BYTES, key=self._key, person=kind).digest()
