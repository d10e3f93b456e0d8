"""From rows of the history table to the truth of a world: which candidates can be simulated, with what.

Called by `helios simulate` with rows of a state folder, of files or of a cluster. A candidate that was never
looked at or never measured is named; nothing is made up for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helios_contract.results import Resolved, Timing
from helios_contract.serves import Precision

from helios_operator.api.rows import Hardware, QualityRow, Row, RowPhase, TasksRow, TimingRow
from helios_operator.api.types import Candidate, DeploymentSpec
from helios_operator.decide.facts.candidates import Key, key
from helios_operator.decide.snapshot import TaskSet
from helios_operator.errors import OperatorError
from helios_operator.simulate.measured import MeasuredBackbone, MeasuredModel, ProfiledText
from helios_operator.simulate.truth import PUBLISHED, Model

_PROFILE_FIX = "profile it first (`helios up`, or `helios profile --result`), or leave it out of the spec"


@dataclass(frozen=True)
class Profiles:
    """truth: by candidate's key; domains: digests of prompts on which all candidates were scored, the newest
    first, each with its texts; hardware: on which the timings were taken."""

    truth: Mapping[Key, Model]
    domains: Mapping[str, tuple[ProfiledText, ...]]
    hardware: Hardware
    rows: Mapping[str, Row]
    tasks: TaskSet | None = None

    @property
    def newest(self) -> tuple[ProfiledText, ...]:
        return next(iter(self.domains.values()))


def gather(
    candidates: Sequence[Candidate],
    resolved: Mapping[str, Resolved],
    rows: Sequence[Row],
    here: Hardware | None = None,
) -> Profiles:
    """resolved: by candidate's name. here: this machine, whose timings come first. OperatorError names the
    candidate, or the kind of row, that is missing."""
    complete = [row for row in rows if row.phase is RowPhase.COMPLETE]
    timings = [row for row in complete if isinstance(row, TimingRow) and row.fit and row.memory]
    qualities = [row for row in complete if isinstance(row, QualityRow) and row.exits]
    if not timings:
        raise OperatorError("profiles", "hold no finished Timing profile", _PROFILE_FIX)
    known = [row.identity.hardware for row in _newest_first(timings)]
    hardware = here if here in known and here is not None else known[0]
    timings = [row for row in timings if row.identity.hardware == hardware]
    backbones = _backbones(candidates, resolved, timings)
    truth = {
        key(candidate): _model(candidate, resolved[candidate.name], backbones, qualities)
        for candidate in candidates
    }
    kept: list[Row] = [*timings, *qualities, *(row for row in complete if isinstance(row, TasksRow))]
    return Profiles(
        truth, _domains(truth, qualities), hardware, {row.name: row for row in kept}, _tasks(kept)
    )


def _newest_first(rows: Sequence[TimingRow]) -> list[TimingRow]:
    return sorted(rows, key=lambda row: (row.completed is not None, row.completed, row.name), reverse=True)


def _backbones(
    candidates: Sequence[Candidate], resolved: Mapping[str, Resolved], timings: Sequence[TimingRow]
) -> dict[str, MeasuredBackbone]:
    """By fingerprint."""
    found: dict[str, dict[Precision, Timing]] = {}
    layers: dict[str, int] = {}
    for candidate in candidates:
        if candidate.name not in resolved:
            raise OperatorError(
                f"candidates[{candidate.name}]",
                "was never inspected, so its backbone is not known",
                _PROFILE_FIX,
            )
        it = resolved[candidate.name]
        layers[it.backbone] = it.num_layers
        of_backbone = found.setdefault(it.backbone, {})
        for row in reversed(_newest_first(timings)):
            if (row.identity.model_uri, row.identity.revision) == (candidate.uri, it.revision):
                of_backbone[row.identity.precision] = row.measured
    for candidate in candidates:
        if PUBLISHED not in found[resolved[candidate.name].backbone]:
            raise OperatorError(f"candidates[{candidate.name}]", "was never timed", _PROFILE_FIX)
    return {
        fingerprint: MeasuredBackbone(fingerprint, layers[fingerprint], timings=of_backbone)
        for fingerprint, of_backbone in found.items()
    }


def _model(
    candidate: Candidate,
    found: Resolved,
    backbones: Mapping[str, MeasuredBackbone],
    qualities: Sequence[QualityRow],
) -> MeasuredModel:
    mine = (candidate.uri, found.revision, found.exits_digest)
    scored = {
        (row.identity.prompts_digest, row.identity.precision): row
        for row in qualities
        if (row.identity.model_uri, row.identity.revision, row.identity.exits_digest) == mine
    }
    if not any(precision == PUBLISHED for _, precision in scored):
        raise OperatorError(
            f"candidates[{candidate.name}]", "has no Quality profile of this bundle", _PROFILE_FIX
        )
    return MeasuredModel(
        backbone=backbones[found.backbone],
        digest=found.exits_digest,
        kind=found.head_kind,
        exits=found.exit_layers,
        found=found,
        scored=scored,
    )


def _domains(
    truth: Mapping[Key, Model], qualities: Sequence[QualityRow]
) -> dict[str, tuple[ProfiledText, ...]]:
    found: dict[str, tuple[ProfiledText, ...]] = {}
    ordered = sorted(qualities, key=lambda row: (row.completed is not None, row.completed), reverse=True)
    for row in ordered:
        digest = row.identity.prompts_digest
        measured = (model for model in truth.values() if isinstance(model, MeasuredModel))
        if row.prompts and all((digest, PUBLISHED) in model.scored for model in measured):
            found.setdefault(digest, _texts(row))
    if not found:
        problem = "hold no set of prompts on which every candidate was scored"
        raise OperatorError("profiles", problem, "profile the candidates on the same prompts")
    return found


def _texts(row: QualityRow) -> tuple[ProfiledText, ...]:
    tokens, count = max(1, row.tokens // row.prompts), row.prompts
    lengths = row.prompt_bytes or (max(1, row.bytes // count),) * count
    digest = row.identity.prompts_digest
    return tuple(ProfiledText(digest, n, count, tokens, length) for n, length in enumerate(lengths))


def _tasks(rows: Sequence[Row]) -> TaskSet | None:
    asked = [row for row in rows if isinstance(row, TasksRow)]
    newest = max(asked, key=lambda row: (row.completed is not None, row.completed), default=None)
    return TaskSet(newest.identity.tasks_digest, newest.tasks) if newest else None


def candidates_of(spec: DeploymentSpec) -> tuple[Candidate, ...]:
    """OperatorError: the spec names a catalogue, whose models nobody gave."""
    if spec.candidate_selector is not None or not spec.candidates:
        problem = "picks candidates from a catalogue, which a simulation does not have"
        raise OperatorError("spec.candidateSelector", problem, "write the candidates into spec.candidates")
    return spec.candidates
