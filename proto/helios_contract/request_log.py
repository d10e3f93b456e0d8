"""One line of a request log: what was asked of a pod, by its lengths, and what an audit found; never a text.

Written by `helios serve --request-log`, read by `helios simulate`. A line is a JSON object whose `kind` says
which of the two it is; an audit comes later than its request, and names it by boot and ordinal. What a newer
release added to a line is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from helios_contract import codec
from helios_contract.codec import Malformed
from helios_contract.serves import AUTO, InPrecision
from helios_contract.telemetry import AS_PUBLISHED, AuditRow

_CODEC = codec.Codec()


@dataclass(frozen=True)
class RequestLine(InPrecision):
    """A request that ended. Times in seconds; what the pod served it with, though it may have changed
    meanwhile, is what its last token came from."""

    arrived: float
    """Unix time."""
    prompt_tokens: int
    output_tokens: int
    boot_id: str = ""
    """Of the pod's process."""
    request: int = 0
    """Ordinal since boot; 0: not counted."""
    candidate: str = ""
    layer_budget: int = 0
    """Layers; 0: nothing came."""
    exits_digest: str = ""
    weight_dtype: str = AUTO
    kv_cache_dtype: str = AUTO
    first_token_seconds: float | None = None
    """After its arrival; None: there was none."""
    seconds: float = 0.0
    """From arrival to end."""
    mean_confidence: float = 0.0
    """In [0, 1]."""
    breaches: int = 0
    """Tokens."""


@dataclass(frozen=True)
class AuditedExit:
    digest: str
    """Of the bundle; "": the model's own head."""
    layer: int
    millibits: int
    """Total."""
    agreeing: int
    """Tokens whose most likely one is full depth's."""


@dataclass(frozen=True)
class AuditLine:
    """What the audit of one request's prompt found: an AuditRow."""

    boot_id: str
    request: int
    tokens: int
    bytes: int
    full_millibits: int
    exits: tuple[AuditedExit, ...] = ()
    reference: str = AS_PUBLISHED

    @classmethod
    def of(cls, boot_id: str, row: AuditRow) -> AuditLine:
        exits = tuple(AuditedExit(digest, layer, *found) for (digest, layer), found in row.exits.items())
        return cls(boot_id, row.request, row.tokens, row.bytes, row.full_millibits, exits, row.reference)

    @property
    def row(self) -> AuditRow:
        exits = {(each.digest, each.layer): (each.millibits, each.agreeing) for each in self.exits}
        return AuditRow(self.request, self.tokens, self.bytes, self.full_millibits, exits, self.reference)


Line = RequestLine | AuditLine
_KINDS: dict[str, type[RequestLine] | type[AuditLine]] = {"request": RequestLine, "audit": AuditLine}


def to_json(line: Line) -> str:
    """Without a line feed."""
    (kind,) = (word for word, each in _KINDS.items() if isinstance(line, each))
    return json.dumps({"kind": kind, **_CODEC.encode(line)}, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Line:
    """codec.Malformed, a ValueError, names what is wrong with a line."""
    try:
        read = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise Malformed("", f"is not JSON ({error})") from None
    if not isinstance(read, Mapping):
        raise Malformed("", f"is {text.strip()[:40]!r}, not an object")
    kind = _KINDS.get(str(read.get("kind")))
    if kind is None:
        raise Malformed("kind", f"is {read.get('kind')!r}, which is none of {', '.join(_KINDS)}")
    return _CODEC.decode(kind, read)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
