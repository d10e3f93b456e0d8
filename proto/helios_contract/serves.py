"""What serves: all that makes one answer differ from another.

Part of the limits that a pod is told and of what it says that it runs; whoever compares two services compares
these. A new way to serve the same model (a precision, an exit mode) is a field here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

AUTO = "auto"
"""A precision: as published, in the format that the engine names for this machine."""
WHOLE_SEQUENCES = "sequence"
"""An exit mode: all tokens of a sequence run at one depth."""
SINGLE_TOKENS = "token"
"""An exit mode: each token leaves at the first exit that is confident enough. A baseline to measure against,
chosen by hand alone."""
EXIT_MODES = (WHOLE_SEQUENCES, SINGLE_TOKENS)


@dataclass(frozen=True, order=True)
class Precision:
    """How weights, and keys and values, are held. `auto` twice is the reference: what others are compared
    with."""

    weight_dtype: str = AUTO
    """auto | int8 (a unit per output channel) | int4 (a unit and an offset per group)"""
    kv_cache_dtype: str = AUTO
    """auto | int8 (a unit per token and head) | fp8 (on devices that have it)"""

    def __str__(self) -> str:
        return f"{self.weight_dtype}/{self.kv_cache_dtype}"


WEIGHT_DTYPES = (AUTO, "int8", "int4")
KV_CACHE_DTYPES = (AUTO, "int8", "fp8")
"""The words there are; what a device or a release can have of them is said where it is known."""
REFERENCE = Precision()
"""As published: what all others are compared with."""
PRECISIONS = tuple(
    Precision(*pair)
    for pair in (
        (AUTO, AUTO),
        ("int8", AUTO),
        ("int8", "int8"),
        (AUTO, "int8"),
        ("int4", AUTO),
        ("int4", "int8"),
    )
)
"""What is measured of a backbone, in this order, as far as the spec allows it and memory holds it."""


class InPrecision:
    """What a record with the two words has beside them."""

    weight_dtype: str
    kv_cache_dtype: str

    @property
    def precision(self) -> Precision:
        """Of weights, and of keys and values."""
        return Precision(self.weight_dtype, self.kv_cache_dtype)


@dataclass(frozen=True)
class Bundle:
    """An exit-head bundle of a backbone."""

    candidate: str
    """Under whose name it is known."""
    uri: str = ""
    """ "": the model's own norm and head."""
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Serves(InPrecision):
    """A model at a depth, in a precision, with its exit heads."""

    candidate: str
    """Its name in the spec."""
    model_uri: str
    model_revision: str = ""
    """Resolved; "": whatever the uri holds."""
    exits_uri: str = ""
    """Of the bundle of exit heads; "": the model's own norm and head at every exit."""
    exits_digest: str = ""
    layer_budget: int = 0
    """Layers held; 0: full depth."""
    exit_mode: str = field(default=WHOLE_SEQUENCES, metadata={"since": 1})
    """How tokens leave early."""
    exit_threshold: float = field(default=0.0, metadata={"since": 1})
    """Confidence from which a single token leaves at an exit; 0: always at the first; above 1: at none."""
    weight_dtype: str = field(default=AUTO, metadata={"since": 1})
    """Precision of the weights."""
    kv_cache_dtype: str = field(default=AUTO, metadata={"since": 1})
    """Precision of keys and values."""

    @property
    def serves(self) -> Serves:
        """This part alone, of whatever it is part of."""
        return Serves(**{each.name: getattr(self, each.name) for each in fields(Serves)})

    @property
    def bundle(self) -> Bundle:
        """The bundle that serves."""
        return Bundle(self.candidate, self.exits_uri, self.exits_digest)
