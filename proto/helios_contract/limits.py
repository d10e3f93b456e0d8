"""What a pod is told to serve and how much it may take: the limits, and their document `limits.json`.

Written by the operator (a ConfigMap, or a file on one machine), read by a pod at start, told with
Control.SetLimits meanwhile. What a model allows, the engine says; what is best, `decide` says: nothing here
judges.

Fractions have six decimals, which the message's single precision carries unchanged: what was decided,
written, told and reported are equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from helios_contract import codec
from helios_contract.serves import Bundle, Serves

_CODEC = codec.Codec()


@dataclass(frozen=True)
class Baseline:
    """Of a per-request quantity."""

    mean: float = 0.0
    """In [0, 1]."""
    standard_deviation: float = 0.0
    """Between requests, in the mean's unit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _six_decimals(self.mean))
        object.__setattr__(self, "standard_deviation", _six_decimals(self.standard_deviation))


@dataclass(frozen=True)
class Audit:
    """Which prompts are scored, and by what they are judged."""

    percent: int = 0
    """Share of requests whose prompt is scored."""
    bundles: tuple[Bundle, ...] = ()
    """Every head bundle of the backbone among the candidates, scored side by side."""
    quality: Baseline | None = None
    """What the profile expects of full-depth bits / exit bits, per request. None: learnt from the first
    requests."""
    confidence: Baseline | None = None
    """Of a request's mean confidence. None: learnt from the first requests."""


@dataclass(frozen=True)
class TaskProbe:
    """Some of the user's tasks, asked of the pod itself beside the traffic."""

    tasks_digest: str
    """Of the tasks, which the pod was given as a file: others are not asked."""
    every_seconds: float
    """Between two rounds."""
    count: int
    """Tasks in a round."""
    passes: str
    """Bits in the tasks' order (`tasks.bits`): those that what serves passes by its profile. No other is
    asked."""


@dataclass(frozen=True, kw_only=True)
class Limits(Serves):
    """What serves, and how much it may take."""

    generation: int
    """Raised with every change."""
    max_batch_size: int = 0
    """Rows; 0: what fits."""
    memory_mib: int = 0
    """Of the whole process; 0: the container's limit, or the machine's memory, or the accelerator's. Of more
    than there is, what there is."""
    max_queue_size: int = 64
    """Waiting requests."""
    exit_layers: tuple[int, ...] = ()
    """Legal depths beside full depth, in layers."""
    audit: Audit = Audit()
    live_prompts: int = 0
    """Prompts kept for profiling, with the user's consent; 0: none."""
    breach_threshold: float = 0.0
    """Confidence in [0, 1] under which a token counts as a breach; 0: the bundle's own."""
    tokens_per_request: int = 512
    """Of prompt and output: capacity in rows is counted by it."""
    task_probe: TaskProbe | None = field(default=None, metadata={"since": 1})
    """None: what serves is not asked."""
    extra: Mapping[str, Any] = field(default_factory=dict, metadata={"wire": None})
    """What the document holds and this release does not know: kept when the document is written again."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "breach_threshold", _six_decimals(self.breach_threshold))
        object.__setattr__(self, "exit_threshold", _six_decimals(self.exit_threshold))

    def newer_than(self, version: int) -> tuple[str, ...]:
        """Fields whose value a reader of that version of the contract does not understand."""
        return tuple(
            each.name
            for each in fields(self)
            if each.metadata.get("since", 0) > version and getattr(self, each.name) != codec.default_of(each)
        )

    def as_known_to(self, version: int) -> Limits:
        """With what such a reader would do anyway in place of what it does not understand."""
        defaults = {each.name: codec.default_of(each) for each in fields(self)}
        return replace(self, **{name: defaults[name] for name in self.newer_than(version)})

    @property
    def unknown(self) -> tuple[str, ...]:
        """The fields of the document that this release does not know, for a log."""
        return codec.paths(self.extra)


def to_json(limits: Limits) -> str:
    """The document. A field that is newer than 0.1.0 stands in it only where it has another value than
    0.1.0's."""
    return json.dumps(_merged(_CODEC.encode(limits), limits.extra), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Limits:
    """The limits in a document of any release. codec.Malformed, a ValueError, names the value that is
    wrong."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise codec.Malformed("", f"is not JSON ({error})") from None
    limits = _CODEC.decode(Limits, document)
    return replace(limits, extra=_CODEC.unknown(Limits, document))


def _merged(document: codec.Json, extra: Mapping[str, Any]) -> codec.Json:
    """What is known stands over what was kept."""
    merged = dict(extra)
    for name, value in document.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(dict(value), below)
        merged[name] = value
    return merged


def _six_decimals(fraction: float) -> float:
    return round(fraction, 6)
