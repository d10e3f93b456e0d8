"""What a pass wants done: actions in order, each with the reason that a person will read, and the new status.

Built by `decide`, carried out by `apply` (of a cluster, or of one machine). Actions are idempotent: the next
pass computes them again from what it sees, so that a crash between two of them loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_contract.limits import Limits

from helios_operator.api.models import Model
from helios_operator.api.rows import Row
from helios_operator.api.types import DeploymentStatus
from helios_operator.decide.snapshot import JobSpec


@dataclass(frozen=True)
class Verdict:
    """An answer with its reason."""

    ok: bool
    reason: str
    """A PascalCase word of api.reasons or api.event_reasons."""
    message: str
    """A sentence with numbers."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Those of the sentence by name, each in the unit that its name or the sentence says."""


@dataclass(frozen=True)
class Event:
    """One per transition."""

    type: str
    """Normal | Warning"""
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Reasoned:
    """What all actions have; `why` becomes the event and the line of `helios why`."""

    why: Verdict


@dataclass(frozen=True, kw_only=True)
class StartJob(Reasoned):
    job: JobSpec


@dataclass(frozen=True, kw_only=True)
class DeleteJob(Reasoned):
    name: str


@dataclass(frozen=True, kw_only=True)
class WriteProfile(Reasoned):
    row: Row


@dataclass(frozen=True, kw_only=True)
class DeleteProfile(Reasoned):
    """`for_all`: what it says is wrong for whoever uses it; else others keep it."""

    name: str
    for_all: bool = False


@dataclass(frozen=True, kw_only=True)
class CreateRevision(Reasoned):
    """A Deployment with its limits document; pods start and load what it names."""

    number: int
    """Of the new revision."""
    limits: Limits
    replicas: int
    """Pods."""


@dataclass(frozen=True, kw_only=True)
class ScaleRevision(Reasoned):
    number: int
    """Of the revision."""
    replicas: int


@dataclass(frozen=True, kw_only=True)
class WriteLimits(Reasoned):
    """Writes the limits document of a running revision, then tells every pod of it (Control.SetLimits)."""

    revision: int
    """Its number."""
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Route(Reasoned):
    """The front address sends new connections to this revision and to no other."""

    revision: int
    """Its number."""


@dataclass(frozen=True, kw_only=True)
class DrainRevision(Reasoned):
    """Readiness off, GOAWAY, running streams end by themselves within the deadline."""

    number: int
    """Of the revision."""
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class DeleteRevision(Reasoned):
    """Only ever of a revision that serves nothing (or, with strategy Recreate, of one whose outage was asked
    for)."""

    number: int
    """Of the revision."""


Action = (
    StartJob
    | DeleteJob
    | WriteProfile
    | DeleteProfile
    | CreateRevision
    | ScaleRevision
    | WriteLimits
    | Route
    | DrainRevision
    | DeleteRevision
)
"""All there are: whoever tells them apart is checked to have thought of each."""


@dataclass(frozen=True)
class SeenQuality:
    """Of what serves, in percent, for people: what is asked, and what audits since the last change tell."""

    target: int
    """What the deployment asks for; 100: as good as the whole model."""
    mean: float | None = None
    """None, as the next two: too few audits."""
    low: float | None = None
    """The one-sided bound at the policy's confidence."""
    high: float | None = None
    """The same from above."""


@dataclass(frozen=True)
class Plan:
    """What is done, and the status that then stands."""

    actions: tuple[Action, ...]
    status: DeploymentStatus
    models: tuple[Model, ...] = ()
    """Entries of the catalogue with a status that is not what stands."""
    events: tuple[Event, ...] = ()
    """Transitions that no action tells of."""
    requeue_after_seconds: float | None = None
    """When to look again though nothing is seen to change. None: at the next event."""
    quality: SeenQuality | None = None
    """None: nothing is asked, or nothing serves."""
