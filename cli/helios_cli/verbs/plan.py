"""`helios plan FILE --profiles PATH`: what would be chosen, what would be rejected, and why; nothing is
changed.

The decisions of `helios up`, on what was measured already: a state folder, HeliosProfiles, or results of
`helios profile`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helios_operator.api import documents, parse, validation
from helios_operator.api.models import Model
from helios_operator.api.rows import Hardware
from helios_operator.api.types import Deployment
from helios_operator.decide import missing, weigh
from helios_operator.decide.facts.candidates import Contender
from helios_operator.decide.facts.evidence import ProfileEvidence, newest_common
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError
from helios_operator.local import hardware
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT, MODEL
from helios_server.models.cache import cache_root
from helios_server.planning import PERFORMANCE_VERSION

from helios_cli import inspection, measured, weighing
from helios_cli import options as shown
from helios_cli.arguments import Parser
from helios_cli.measured import Measured
from helios_cli.options import CHOSEN, OptionView
from helios_cli.output import paragraph, show
from helios_cli.views import short_time


@dataclass(frozen=True)
class PlanView:
    """`chosen` None: nothing is feasible. `objective`: that options are ordered by; `turned_away`: candidates
    that no option was made of. `missing`: what would be measured first. `hardware`: where the timings were
    taken, and whether that is this machine; `prompts`: whose the quality rests on; `set_aside`: quality rows
    of other prompts."""

    name: str
    chosen: OptionView | None
    options: list[OptionView]
    objective: str
    turned_away: list[dict[str, str]]
    missing: list[str]
    hardware: str
    this_machine: bool
    memory_mib: int
    prompts: str
    set_aside: list[str]


@dataclass(frozen=True)
class Asked:
    """FILE, and how this machine is used."""

    models: tuple[Model, ...]
    config_maps: Mapping[str, Mapping[str, Any]]
    memory_mib: int | None
    volumes: Path
    here: Hardware

    def text(self, config_map: str, key: str) -> str | None:
        found: str | None = self.config_maps.get(config_map, {}).get(key)
        return found


def run(argv: Sequence[str]) -> int:
    parser = Parser("plan", "What would be chosen and why, from profiles; changes nothing.").with_output()
    parser.add_argument("file", metavar="FILE", type=Path, help="as for `helios up`")
    parser.add_argument(
        "--profiles",
        type=Path,
        metavar="PATH",
        required=True,
        help="a state folder; HeliosProfiles, or results of `helios profile --result`, or a folder of them",
    )
    parser.add_argument(
        "--volumes",
        type=Path,
        default=cache_root(),
        metavar="DIR",
        help="folder in which pvc://claim is a folder",
    )
    parser.add_argument(
        "--memory-mib", type=int, metavar="N", help="memory for all pods (default: the machine's)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="default: the device's"
    )
    options = parser.parse_args(argv)
    stand = documents.read(options.file)
    objects = [validation.admit(obj) for obj in stand if obj.get("kind") in (DEPLOYMENT, MODEL)]
    deployments = [parse.deployment(obj) for obj in objects if obj["kind"] == DEPLOYMENT]
    if not deployments:
        raise OperatorError("FILE", f"holds no {DEPLOYMENT}", "add one: see examples/")
    asked = Asked(
        models=tuple(parse.model(obj) for obj in objects if obj["kind"] == MODEL),
        config_maps={o["metadata"]["name"]: o.get("data", {}) for o in stand if o.get("kind") == CONFIG_MAP},
        memory_mib=options.memory_mib,
        volumes=options.volumes,
        here=hardware.detect(options.device, options.dtype)[1],
    )
    known = measured.read(options.profiles)
    views = [_view(_limited(deployment, asked), known, asked) for deployment in deployments]
    show(views, options.output, _tables)
    return 0 if all(view.chosen for view in views) else 1


def _limited(deployment: Deployment, asked: Asked) -> Deployment:
    """As `helios up --memory-mib` has it: the limit of a deployment that has none of its own."""
    given, limits, pods = asked.memory_mib, deployment.spec.limits, max(1, deployment.spec.replicas)
    if given is None:
        return deployment
    if given < 1:
        raise OperatorError(
            "memory-mib", f"{given} is no memory size", "give that of all pods together, in MiB"
        )
    if limits.memory_mib is None:
        limits = replace(limits, memory_mib=given)
        return replace(deployment, spec=replace(deployment.spec, limits=limits))
    if given < pods * limits.memory_mib:
        asks = f"{pods} x spec.limits.memoryMiB {limits.memory_mib} of {deployment.name}"
        raise OperatorError("memory-mib", f"{given} is less than {asks}", "lower that, or give more")
    return deployment


def _view(deployment: Deployment, known: Measured, asked: Asked) -> PlanView:
    now = datetime.now(UTC)
    snapshot, set_aside = _on_own_prompts(_snapshot(deployment, known, asked))
    contenders, options = weigh(snapshot, now)
    views = [OptionView.of(option) for option in options]
    chosen = next((view for view in views if view.feasible), None)
    marked = [replace(view, standing=CHOSEN) if view is chosen else view for view in views]
    machine = snapshot.hardware
    evidence = newest_common([c for c in contenders if c.competes], now)
    return PlanView(
        name=snapshot.deployment.name,
        chosen=marked[views.index(chosen)] if chosen else None,
        options=marked,
        objective=deployment.spec.slo.optimization_type,
        turned_away=[_turned_away(contender) for contender in contenders if not contender.competes],
        missing=[
            f"{job.kind.value} of {', '.join(c.name for c in job.candidates)}{job.held}"
            for job in missing(snapshot, now)
        ],
        hardware=f"{machine.accelerator or machine.cpu}, {machine.cores} cores, {machine.dtype}",
        this_machine=machine == hardware.detect(dtype=machine.dtype)[1],
        memory_mib=deployment.spec.limits.memory_mib or machine.memory_mib,
        prompts=_whose(evidence, snapshot, known),
        set_aside=set_aside,
    )


def _snapshot(deployment: Deployment, known: Measured, asked: Asked) -> Snapshot:
    """A machine on which nothing runs yet, with the table full of what is given."""
    blank = Snapshot(
        deployment=deployment,
        hardware=asked.here,
        free_memory_mib=asked.memory_mib or asked.here.memory_mib,
        performance_version=PERFORMANCE_VERSION,
        models=asked.models,
        prompts=weighing.given_prompts(deployment, asked.text),
        tasks=weighing.given_tasks(deployment, asked.text),
    )
    looked = _inspected(weighing.with_rows(blank, known.rows), asked.volumes)
    if not known.results:
        return _measured_where(looked, asked.here)
    found = measured.rows_of(known.results, weigh(looked, datetime.now(UTC))[0], looked)
    return _measured_where(weighing.with_rows(looked, (*known.rows, *found)), asked.here)


def _measured_where(snapshot: Snapshot, here: Hardware) -> Snapshot:
    """On this machine, or where the profiles come from when none is of this one."""
    known = [row.identity.hardware for row in snapshot.timings]
    return replace(snapshot, hardware=here if here in known or not known else known[0])


def _inspected(snapshot: Snapshot, volumes: Path) -> Snapshot:
    """With every candidate looked at."""
    wanted = [contender.candidate for contender in weigh(snapshot, datetime.now(UTC))[0]]
    return inspection.looked_at(snapshot, wanted, inspection.look_at(wanted, volumes))


# -- whose prompts -------------------------------------------------------------------------------------------


def _on_own_prompts(snapshot: Snapshot) -> tuple[Snapshot, list[str]]:
    """Where FILE gives prompts, `helios up` measures on them, whatever was measured on others."""
    if snapshot.prompts is None:
        return snapshot, []
    own = [q for q in snapshot.qualities if q.identity.prompts_digest == snapshot.prompts.digest]
    foreign = [q.name for q in snapshot.qualities if q not in own]
    return replace(snapshot, qualities=tuple(own)), foreign


def _whose(evidence: ProfileEvidence | None, snapshot: Snapshot, known: Measured) -> str:
    source = snapshot.deployment.spec.profiling.prompts
    kind = "ConfigMap" if source.config_map_ref else "inline" if source.inline else "live"
    if evidence is None:
        return f"none measured on FILE's {kind} prompts" if snapshot.prompts else "none measured"
    rows = [row for row in snapshot.qualities if row.identity.prompts_digest == evidence.prompts_digest]
    owners = sorted({owner for row in rows for owner in known.owners.get(row.name, ())})
    whose = (
        f"FILE's {kind} prompts" if snapshot.prompts else f"prompts of {', '.join(owners) or 'nobody named'}"
    )
    when = short_time(evidence.completed.isoformat()) if evidence.completed else "unknown"
    return f"{whose}: {evidence.samples}, {evidence.prompts_digest[:19]}, measured {when}"


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
    chosen = view.chosen.message if view.chosen else "nothing is feasible"
    print(paragraph(f"{view.name}: {chosen}", "  "))
    print(paragraph(f"timings: {view.hardware} ({where}), {view.memory_mib} MiB for a pod", "  "))
    print(paragraph(f"quality: {view.prompts}", "  "))
    if view.set_aside:
        rows = ", ".join(view.set_aside)
        print(paragraph(f"not used, measured on other prompts than FILE's: {rows}", "  "))
    if view.options:
        print(paragraph(f"options: as timed, {shown.order(view.objective)}", "  ") + "\n")
        for line in shown.table(view.options, view.objective):
            print(line)
    for away in view.turned_away:
        print(paragraph(f"{away['candidate']}: {away['reason']}: {away['message']}", "  "))
    if view.missing:
        print("\n" + paragraph(f"To be measured first: {'; '.join(view.missing)}", "  "))
