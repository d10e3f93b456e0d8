"""`helios plan FILE --profiles DIR`: what would be chosen, what would be rejected, and why; nothing is
changed.

The decisions of `helios up`, on profiles that exist already: of a state folder, or of a folder of
HeliosProfiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.api import documents, parse, validation
from helios_operator.api.models import Model
from helios_operator.api.rows import Hardware, QualityRow, Row, TimingRow
from helios_operator.api.types import Deployment
from helios_operator.decide import missing, weigh
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.snapshot import Job, JobKind, JobPhase, JobSpec, Snapshot
from helios_operator.decide.weigh import select
from helios_operator.decide.weigh.options import Option
from helios_operator.errors import OperatorError
from helios_operator.local import hardware
from helios_operator.local.store import DEPLOYMENT, MODEL
from helios_server.models.cache import cache_root
from helios_server.planning import PERFORMANCE_VERSION

from helios_cli.arguments import Parser
from helios_cli.output import columns, show
from helios_cli.profiled import parsed, stored
from helios_cli.views import PUBLISHED


@dataclass(frozen=True)
class OptionView:
    """A candidate at a depth in layers, its weights/keys and values held in some precision. `numbers`: the
    prediction, with the unit in each name."""

    candidate: str
    layers: int
    precision: str
    rows: int
    feasible: bool
    reason: str
    message: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanView:
    """`chosen` None: nothing is feasible. `turned_away`: candidates that no option was made of. `missing`:
    what would be measured first. `hardware`: where the timings were taken, and whether that is this
    machine."""

    name: str
    chosen: OptionView | None
    options: list[OptionView]
    turned_away: list[dict[str, str]]
    missing: list[str]
    hardware: str
    this_machine: bool


def run(argv: Sequence[str]) -> int:
    parser = Parser("plan", "What would be chosen and why, from profiles; changes nothing.").with_output()
    parser.add_argument("file", metavar="FILE", type=Path, help="as for `helios up`")
    parser.add_argument(
        "--profiles",
        type=Path,
        metavar="DIR",
        required=True,
        help="a state folder, or files of HeliosProfiles",
    )
    parser.add_argument(
        "--volumes", type=Path, default=cache_root(), metavar="DIR", help="where claims are folders"
    )
    parser.add_argument(
        "--memory-mib", type=int, metavar="N", help="memory for all pods (default: the machine's)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="default: the device's"
    )
    options = parser.parse_args(argv)
    objects = [
        validation.admit(obj)
        for obj in documents.read(options.file)
        if obj.get("kind") in (DEPLOYMENT, MODEL)
    ]
    deployments = [parse.deployment(obj) for obj in objects if obj["kind"] == DEPLOYMENT]
    if not deployments:
        raise OperatorError("FILE", f"holds no {DEPLOYMENT}", "add one: see examples/")
    models = tuple(parse.model(obj) for obj in objects if obj["kind"] == MODEL)
    rows = parsed(stored(options.profiles))
    here = hardware.detect(options.device, options.dtype)[1]
    views = [_view(_snapshot(d, models, rows, here, options)) for d in deployments]
    show(views, options.output, _tables)
    return 0 if all(view.chosen for view in views) else 1


def _snapshot(
    deployment: Deployment,
    models: tuple[Model, ...],
    rows: Sequence[Row],
    here: Hardware,
    options: Any,
) -> Snapshot:
    """A machine on which nothing runs yet, with the table full of what is given."""
    timings = tuple(row for row in rows if isinstance(row, TimingRow))
    measured_on = _hardware_of(timings, here)
    blank = Snapshot(
        deployment=deployment,
        hardware=measured_on,
        free_memory_mib=options.memory_mib or measured_on.memory_mib,
        performance_version=PERFORMANCE_VERSION,
        models=models,
        timings=timings,
        qualities=tuple(row for row in rows if isinstance(row, QualityRow)),
    )
    return _inspected(blank, options.volumes)


def _hardware_of(timings: Sequence[TimingRow], here: Hardware) -> Hardware:
    """This machine's, or where the profiles come from when none is of this one."""
    known = [row.identity.hardware for row in timings]
    return here if here in known or not known else known[0]


def _inspected(snapshot: Snapshot, volumes: Path) -> Snapshot:
    """With every candidate looked at, as an Inspect Job would: headers only, in this process."""
    from helios_server.profile.candidates import Candidate
    from helios_server.profile.inspect import inspect

    now = datetime.now(UTC)
    wanted = tuple(contender.candidate for contender in weigh(snapshot, now)[0])
    told = [Candidate(c.name, c.uri, c.revision, c.exits, c.exit_layers) for c in wanted]
    found = inspect(told, volumes)
    spec = JobSpec("inspect", JobKind.INSPECT, wanted)
    job = Job(spec, JobPhase.SUCCEEDED, now, now, resolved=found.resolved, problems=found.problems)
    return replace(snapshot, jobs=(job,))


def _view(snapshot: Snapshot) -> PlanView:
    now = datetime.now(UTC)
    contenders, options = weigh(snapshot, now)
    views = [_option(option) for option in options]
    machine = snapshot.hardware
    return PlanView(
        name=snapshot.deployment.name,
        chosen=next((view for view in views if view.feasible), None),
        options=views,
        turned_away=[_turned_away(contender) for contender in contenders if not contender.competes],
        missing=[
            f"{job.kind.value} of {', '.join(c.name for c in job.candidates)}{job.held}"
            for job in missing(snapshot, now)
        ],
        hardware=f"{machine.accelerator or machine.cpu}, {machine.cores} cores, {machine.dtype}",
        this_machine=machine == hardware.detect(dtype=machine.dtype)[1],
    )


def _option(option: Option) -> OptionView:
    verdict = option.verdict
    return OptionView(
        candidate=option.contender.name,
        layers=option.layer_budget,
        precision=str(option.precision),
        rows=option.max_batch_size,
        feasible=verdict.ok,
        reason=verdict.reason,
        message=verdict.message,
        numbers=select.numbers(option),
    )


def _turned_away(contender: Contender) -> dict[str, str]:
    verdict = contender.turned_away
    return {
        "candidate": contender.name,
        "reason": verdict.reason if verdict else "",
        "message": verdict.message if verdict else "",
    }


def _tables(views: Sequence[PlanView]) -> None:
    for view in views:
        _table(view)


def _table(view: PlanView) -> None:
    where = "this machine" if view.this_machine else "NOT this machine"
    print(f"{view.name}: {view.chosen.message if view.chosen else 'nothing is feasible'}")
    print(f"timings: {view.hardware} ({where})")
    shown = any(option.precision != PUBLISHED for option in view.options)
    rows = [_row(option, option is view.chosen, shown) for option in view.options]
    held = ("PRECISION",) if shown else ()
    titles = ("CANDIDATE", "LAYERS", *held, "ROWS", "QUALITY %", "TOKENS/S", "ITL MS", "VERDICT", "WHY")
    print("\n" + columns(titles, rows))
    for away in view.turned_away:
        print(f"{away['candidate']}: {away['reason']}: {away['message']}")
    if view.missing:
        print("\nTo be measured first: " + "; ".join(view.missing))


def _row(option: OptionView, chosen: bool, shown: bool) -> list[object]:
    figures = [option.numbers.get(name) for name in ("qualityPercent", "tokensPerSecond", "itlMs")]
    verdict = "chosen" if chosen else "feasible" if option.feasible else option.reason
    held = (option.precision,) if shown else ()
    return [option.candidate, option.layers, *held, option.rows, *figures, verdict, option.message]
