"""What a profiling Job hands back: the document `helios-result/1`, a file on one machine, a termination
message in a cluster.

Written by `helios profile`, read by whoever started the Job; what it measured stands in a HeliosProfile
afterwards, by the same names. Integers, so that two readers agree to the last bit; a name that a newer
release added is left alone, and the schema's number changes only if the meaning of one changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from helios_contract import codec
from helios_contract.codec import Malformed
from helios_contract.serves import AUTO

SCHEMA = "helios-result/1"

_CODEC = codec.Codec()


# -- inspect -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resolved:
    """What a candidate turned out to be."""

    revision: str
    backbone: str
    """Fingerprint: candidates with the same one differ by heads only."""
    num_layers: int
    max_context_tokens: int
    """Of prompt and output, as it is served."""
    exits_digest: str
    """ "": no bundle."""
    head_kind: str
    """bare | affine | mlp"""
    exit_layers: tuple[int, ...]
    """Legal depths below full depth: of the bundle, or the candidate's own with bare heads."""
    breach_thresholds: Mapping[int, float] = field(default_factory=dict, metadata={"milli": True})
    """Calibrated confidence threshold per exit layer, 0 to 1."""
    model_context_tokens: int = field(default=0, metadata={"since": 1})
    """What the model is made for; 0: what is served."""
    longest_context_tokens: int = field(default=0, metadata={"since": 1})
    """What its rope stretches to; 0: no more than the model is made for."""


@dataclass(frozen=True)
class Inspection:
    """By candidate's name: what was found, or what is wrong with it, which does not spoil the others."""

    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """A precision that a Job was asked for and could not measure, beside others."""

    weight_dtype: str
    kv_cache_dtype: str
    why: str
    """The field that it fails by, and the problem."""


# -- timing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadCost:
    """Of the LM head with one kind of exit head before it."""

    base_ns: int
    per_row_ns: int
    at_ns: tuple[int, ...] = field(default=(), metadata={"since": 1})
    """Of the model's own head, at the first of the fit's `at_rows`, so many rows sampled; with more it was
    not timed. Of other kinds their line tells what they take beside that."""


@dataclass(frozen=True)
class StepTimeFit:
    """The timing law's figures (`planning.timing`): at the rows that were timed, and the straight line
    through their ends, which is all that an earlier release told and reads."""

    step_ns: int
    per_layer_ns: int
    per_layer_row_ns: int
    per_layer_kv_token_ns: int
    heads: Mapping[str, HeadCost] = field(default_factory=dict, metadata={"wire": "head"})
    """By kind of exit head."""
    error_percent: int = 0
    """How far the law is from steps that it was not made from, or from those that it was, if that is more."""
    at_rows: tuple[int, ...] = field(default=(), metadata={"since": 1})
    """New tokens of the steps that were timed, ascending; empty: the line alone is known."""
    layer_at_ns: tuple[int, ...] = field(default=(), metadata={"since": 1})
    """Of a layer at each of them, without what context costs."""

    def __post_init__(self) -> None:
        rows = self.at_rows
        if any(row < 1 for row in rows) or any(a >= b for a, b in pairwise(rows)):
            raise ValueError(f"atRows is {list(rows)}, not numbers of rows in ascending order")
        if len(self.layer_at_ns) != len(rows):
            raise ValueError(f"layerAtNs has {len(self.layer_at_ns)} figures, atRows has {len(rows)}")
        for kind, cost in self.heads.items():
            if len(cost.at_ns) > len(rows):
                raise ValueError(f"head.{kind}.atNs has {len(cost.at_ns)} figures, atRows has {len(rows)}")

    @property
    def timed_rows(self) -> int:
        """The most that were timed while all of them decoded; 0: not told."""
        known = max((len(cost.at_ns) for cost in self.heads.values()), default=0)
        return self.at_rows[known - 1] if known else 0


@dataclass(frozen=True)
class MemoryFacts:
    """What a backbone costs at one dtype on one device: the memory law's arguments (`planning.memory`)."""

    process_start_bytes: int
    """Held by the process before the model (anonymous memory on CPU, the context on CUDA)."""
    fixed_bytes: int
    """Embeddings, final norm, LM head, rotary tables: resident at every depth."""
    layer_bytes: int
    """One decoder layer."""
    kv_bytes_per_token_layer: int
    """Keys and values of one token in one layer."""
    activation_bytes_per_token: int
    """Peak of temporaries per new token in a step."""
    row_bytes: int
    """Per sampled row: logits and what sampling makes of them."""
    step_tokens: int
    """The token budget of one step (new tokens)."""
    page_tokens: int
    """Tokens per KV page; capacity is whole pages."""


@dataclass(frozen=True)
class EnergyPoint:
    """Of generated tokens, with so many rows decoding."""

    layer_budget: int
    rows: int
    joules_per_megatoken: int


@dataclass(frozen=True)
class EnergyCost:
    source: str
    """nvml | rapl | declared"""
    points: tuple[EnergyPoint, ...]
    idle_milliwatts: int = 0

    @property
    def joules_per_megatoken(self) -> Mapping[tuple[int, int], int]:
        """(layer budget, rows) -> J per 10^6 tokens."""
        return {(point.layer_budget, point.rows): point.joules_per_megatoken for point in self.points}


@dataclass(frozen=True)
class TimingPoint:
    """One measured shape of a step."""

    layer_budget: int
    rows: int
    """New tokens in the step."""
    kv_tokens: int
    """Context summed over the rows."""
    sampled: int
    """Rows through the LM head."""
    head_kind: str
    step_p50_us: int
    step_p95_us: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long steps of a backbone last and what memory it takes, on one kind of hardware."""

    fit: StepTimeFit | None = None
    memory: MemoryFacts | None = None
    exit_bytes: Mapping[str, int] = field(default_factory=dict)
    """Resident bytes of one bundle by head kind."""
    audit_bytes: int = 0
    """The audit's own peak: one layer and its batch."""
    energy: EnergyCost | None = None
    """None: nothing measures it."""
    points: tuple[TimingPoint, ...] = ()
    """What the fit was made from: for people, decisions read the fit."""
    device_memory_bytes: int = field(default=0, metadata={"since": 1})
    """All that the accelerator has, as it says itself; 0: measured on a CPU, whose memory the pod's limit
    bounds."""
    weight_dtype: str = field(default=AUTO, metadata={"since": 1})
    """The precision that was timed, as the next one."""
    kv_cache_dtype: str = field(default=AUTO, metadata={"since": 1})


@dataclass(frozen=True)
class Timings:
    """Of one backbone in several precisions, measured by one Job."""

    timings: tuple[Timing, ...]
    left_out: tuple[LeftOut, ...] = field(default=(), metadata={"since": 1})


# -- quality -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExitQuality:
    """At one depth over all prompts. Shares are of tokens, in per cent."""

    layer: int
    millibits: int
    """Total."""
    agreement_percent: int
    """Whose most likely token is full depth's."""
    first_agrees_percent: int
    """Who agree with full depth here first."""
    ece_milli: int
    """Calibration error of confidence as the chance of that agreement, in thousandths."""
    mean_confidence_milli: int = 0
    prompt_millibits: tuple[int, ...] = ()
    """Total per prompt, in prompt order; empty where only totals are kept."""


@dataclass(frozen=True)
class CandidateQuality:
    candidate: str
    exits_digest: str
    exits: tuple[ExitQuality, ...]
    """Every exit of the bundle and, last, full depth. Agreement is with full depth in the reference
    precision, `auto` for both."""
    weight_dtype: str = field(default=AUTO, metadata={"since": 1})
    """The precision that was scored, as the next one; a candidate has a row for each."""
    kv_cache_dtype: str = field(default=AUTO, metadata={"since": 1})


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What was scored."""

    prompts: int = 0
    """How many."""
    tokens: int = 0
    bytes: int = 0
    """Of the text scored, in UTF-8."""
    prompt_bytes: tuple[int, ...] = ()
    """In prompt order; empty where only totals are kept."""


@dataclass(frozen=True, kw_only=True)
class Quality(Texts):
    """What each exit of each bundle of one backbone is worth on the same prompts."""

    prompts_digest: str
    rows: tuple[CandidateQuality, ...]
    left_out: tuple[LeftOut, ...] = field(default=(), metadata={"since": 1})


# -- tasks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptionPasses:
    """Which tasks an option passes: a candidate in a precision at a depth."""

    candidate: str
    exits_digest: str
    """ "": the model's own head, as always at full depth."""
    layer_budget: int
    """Layers."""
    passes: str
    """Bits in the tasks' order, as `tasks.bits` writes them."""
    weight_dtype: str = AUTO
    kv_cache_dtype: str = AUTO


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What some options passed of the same tasks, answered greedily."""

    tasks_digest: str
    tasks: int
    """How many."""
    rows: tuple[OptionPasses, ...]
    left_out: tuple[LeftOut, ...] = field(default=(), metadata={"since": 1})


# -- the document --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A run that could not measure: what was wrong, and how to put it right."""

    kind: str
    """inspect | timing | quality | tasks"""
    field: str
    problem: str
    fix: str


Result = Inspection | Timing | Timings | Quality | Tasks | Failure
_KINDS: dict[type[Any], str] = {
    Inspection: "inspect",
    Timing: "timing",
    Timings: "timings",
    Quality: "quality",
    Tasks: "tasks",
}


def document(result: Result) -> codec.Json:
    """The JSON object of a result."""
    match result:
        case Failure():
            error = {"field": result.field, "problem": result.problem, "fix": result.fix}
            return {"schema": SCHEMA, "kind": result.kind, "error": error}
        case Inspection():
            found: codec.Json = {name: _CODEC.encode(found) for name, found in result.resolved.items()}
            found |= {name: {"error": problem} for name, problem in result.problems.items()}
            return {"schema": SCHEMA, "kind": "inspect", "resolved": found}
    return {"schema": SCHEMA, "kind": _KINDS[type(result)], **_CODEC.encode(result)}


def to_json(result: Result) -> str:
    """The document, compact."""
    return json.dumps(document(result), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Result:
    """codec.Malformed, a ValueError, for anything that is not a document of this schema."""
    try:
        read = json.loads(text)
    except ValueError as error:
        raise Malformed("", f"is not JSON ({error})") from None
    if not isinstance(read, Mapping) or read.get("schema") != SCHEMA:
        found = read.get("schema") if isinstance(read, Mapping) else None
        raise Malformed("schema", f"is {found!r}, {SCHEMA} is known")
    kind, problem = read.get("kind", ""), read.get("error")
    if problem is not None:
        return _CODEC.decode(Failure, {"kind": kind, **_object(problem, "error")}, "error")
    if kind == "inspect":
        return _inspection(_object(read.get("resolved"), "resolved"))
    for measured, name in _KINDS.items():
        if kind == name:
            return _CODEC.decode(measured, read)  # type: ignore[no-any-return]
    raise Malformed("kind", f"is {kind!r}, which is none of {', '.join(_KINDS.values())}")


def _inspection(answers: Mapping[str, Any]) -> Inspection:
    resolved, problems = {}, {}
    for name, answer in answers.items():
        if "error" in _object(answer, f"resolved.{name}"):
            problems[name] = str(answer["error"])
        else:
            resolved[name] = _CODEC.decode(Resolved, answer, f"resolved.{name}")
    return Inspection(resolved, problems)


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Malformed(path, f"is {value!r}, not an object")
    return value
