"""`helios simulate TRACE --spec FILE`: what the loop would have done with recorded, or generated, traffic.

The decisions of `helios up` in a simulated world, on profiles that exist already; nothing is started,
measured or changed. Ablations run the same traffic again without one mechanism, or with one constant turned.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from helios_contract.results import Inspection, Resolved
from helios_operator.api import documents, parse, validation
from helios_operator.api.rows import Hardware, Row
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide import weigh
from helios_operator.decide.snapshot import Snapshot
from helios_operator.errors import OperatorError
from helios_operator.local import hardware
from helios_operator.local.store import DEPLOYMENT
from helios_operator.simulate import ablations, profiles, traffic
from helios_operator.simulate.hindsight import Hindsight, compare
from helios_operator.simulate.profiles import Profiles
from helios_operator.simulate.replay import Clocks, Outcome, Replay
from helios_operator.simulate.traffic import Drift, Recorded, Request
from helios_server.models.cache import cache_root
from helios_server.planning import PERFORMANCE_VERSION

from helios_cli import inspection, measured
from helios_cli.arguments import Parser
from helios_cli.measured import Measured
from helios_cli.output import columns, show
from helios_cli.places import place
from helios_cli.trace_texts import kinds_of, texts_of

T = TypeVar("T", int, float)

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
"""Of generated traffic: any moment will do, and always the same one."""


@dataclass(frozen=True)
class RunView:
    """What one run came to. Milliseconds, tokens per second, percent; `regret_percent` None: no option that
    stays as it is met all that is asked, or none was compared."""

    name: str
    changes: int
    changes_per_hour: float
    figures: dict[str, Any]
    regret_percent: float | None


@dataclass(frozen=True)
class SimulationView:
    """`quality_is`: where it comes from. `statics`: what each option would have come to, served
    throughout."""

    name: str
    traffic: str
    quality_is: str
    hardware: str
    decisions: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    result: RunView
    statics: list[dict[str, Any]]
    best_static: str | None
    ablations: list[RunView]


def run(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    deployment = _deployment(options)
    found = _profiles(options, deployment)
    requests, began, said, quality = _traffic(options, deployment, found)
    clocks = Clocks(began, options.pass_seconds, options.start_seconds, options.job_seconds)
    begin = partial(Replay.of, profiles=found, clocks=clocks, memory_mib=options.memory_mib or 0)
    variants = ablations.variants(deployment.spec, options.ablate)
    made = begin(deployment.spec)
    outcome = made.serve_all(requests())
    hindsight = Hindsight((), None) if options.no_hindsight else compare(made, requests)
    machine = found.hardware
    view = SimulationView(
        name=deployment.name,
        traffic=said,
        quality_is=quality,
        hardware=f"{machine.accelerator or machine.cpu}, {machine.cores} cores, {machine.dtype}",
        decisions=[asdict(each) for each in outcome.decisions],
        changes=[asdict(each) for each in outcome.changes],
        result=_run_view("as it is", outcome, hindsight),
        statics=[
            {"option": each.option, "met": each.met, **asdict(each.figures)} for each in hindsight.statics
        ],
        best_static=hindsight.best.option if hindsight.best else None,
        ablations=[
            _run_view(v.name, begin(v.spec, policy=v.policy).serve_all(requests()), hindsight)
            for v in variants
        ],
    )
    show(view, options.output, _table)
    return 0


def _run_view(name: str, outcome: Outcome, hindsight: Hindsight) -> RunView:
    figures, regret = asdict(outcome.figures), hindsight.regret(outcome)
    return RunView(name, len(outcome.changes), outcome.changes_per_hour, figures, regret)


# -- what is asked -------------------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser("simulate", "What the control loop would have done with this traffic; starts nothing.")
    parser.with_output()
    parser.add_argument(
        "trace", metavar="TRACE", nargs="?", type=Path, help="what `helios serve --request-log` wrote"
    )
    parser.add_argument("--spec", metavar="FILE", type=Path, required=True, help="as for `helios up`")
    parser.add_argument("--name", metavar="NAME", help="name of the HeliosDeployment, if FILE has several")
    parser.add_argument(
        "--profiles",
        metavar="PATH",
        type=Path,
        help="as for `helios plan` (default: where FILE's name is served)",
    )
    parser.add_argument("--replicas", metavar="N", type=_count, help="instead of the spec's")
    parser.add_argument("--memory-mib", metavar="N", type=_count, help="memory of all pods together")
    parser.add_argument(
        "--ablate",
        metavar="WORD",
        nargs="+",
        default=[],
        help="run it again: mechanisms (without each), policy (with each constant changed), or a constant",
    )
    parser.add_argument("--no-hindsight", action="store_true", help="skip the comparison with single options")
    add = parser.add_argument_group("generated traffic").add_argument
    add("--generate", metavar="N", type=_count, help="number of generated requests, instead of TRACE")
    add("--rate", metavar="R", type=_seconds, default=1.0, help="requests per second (default: 1)")
    add(
        "--shift-seconds",
        metavar="S",
        type=_seconds,
        default=600.0,
        help="length of each phase (default: 600)",
    )
    add("--seed", metavar="N", type=int, default=0, help="default: 0")
    add = parser.add_argument_group("clocks, in seconds").add_argument
    add("--pass-seconds", metavar="S", type=_seconds, default=1.0, help="between passes (default: 1)")
    add("--start-seconds", metavar="S", type=_seconds, default=5.0, help="until a pod serves (default: 5)")
    add("--job-seconds", metavar="S", type=_seconds, default=30.0, help="length of a Job (default: 30)")
    return parser.with_place()


def _count(text: str) -> int:
    return _above_zero(int(text), text)


def _seconds(text: str) -> float:
    return _above_zero(float(text), text)


def _above_zero(value: T, text: str) -> T:
    if not 0 < value < 1e12:
        raise ArgumentTypeError(f"{text} is not above 0")
    return value


def _deployment(options: Namespace) -> Deployment:
    objects = [obj for obj in documents.read(options.spec) if obj.get("kind") == DEPLOYMENT]
    deployments = [parse.deployment(validation.admit(obj)) for obj in objects]
    named = [each for each in deployments if options.name in (None, each.name)]
    if not named:
        raise OperatorError("spec", f"{options.spec} holds no such {DEPLOYMENT}", "add one: see examples/")
    if len(named) > 1:
        names = ", ".join(each.name for each in named)
        raise OperatorError("name", f"{options.spec} holds {names}", "choose one with --name")
    (deployment,) = named
    if options.replicas:
        deployment = replace(deployment, spec=replace(deployment.spec, replicas=options.replicas))
    return deployment


def _profiles(options: Namespace, deployment: Deployment) -> Profiles:
    candidates = profiles.candidates_of(deployment.spec)
    here = hardware.detect("auto", None)[1]
    known = _known(options, deployment)
    resolved = measured.resolved(known, candidates)
    if known.rows or known.results:
        resolved |= _looked_at([c for c in candidates if c.name not in resolved])
    rows = [*known.rows, *_rows_of(known, deployment, resolved, here)]
    return profiles.gather(candidates, resolved, rows, here)


def _known(options: Namespace, deployment: Deployment) -> Measured:
    if options.profiles:
        return measured.read(options.profiles)
    options.name = deployment.name
    with place(options) as there:
        found = there.find(deployment.name)
        return measured.of_objects([*found.profiles(), found.obj])


def _looked_at(candidates: Sequence[Candidate]) -> Mapping[str, Resolved]:
    if not candidates:
        return {}
    found = inspection.look_at(candidates, cache_root())
    for name, problem in found.problems.items():
        raise OperatorError(f"candidates[{name}]", problem, "profile it, or correct its uri")
    return found.resolved


def _rows_of(
    known: Measured, deployment: Deployment, resolved: Mapping[str, Resolved], here: Hardware
) -> Iterable[Row]:
    if not known.results:
        return ()
    blank = Snapshot(deployment, here, here.memory_mib, performance_version=PERFORMANCE_VERSION)
    looked = inspection.looked_at(blank, deployment.spec.candidates, Inspection(resolved))
    return measured.rows_of(known.results, weigh(looked, datetime.now(UTC))[0], looked)


# -- what comes ----------------------------------------------------------------------------------------------


def _traffic(
    options: Namespace, deployment: Deployment, found: Profiles
) -> tuple[Callable[[], Iterable[Request]], datetime, str, str]:
    """The requests, as often as asked; when they began; what they are; what their quality is."""
    if (options.trace is None) == (options.generate is None):
        problem = "a TRACE and --generate" if options.trace else "neither a TRACE nor --generate"
        raise OperatorError("arguments", f"{problem} are given", "give one of them")
    if options.trace is None:
        return _generated(options, deployment, found)
    recorded = traffic.read(options.trace)
    texts = texts_of(recorded, found)
    began = datetime.fromtimestamp(recorded.lines[0].arrived, UTC)
    return (
        lambda: traffic.replayed(recorded, texts),
        began,
        f"{len(recorded.lines)} requests of {options.trace}{_left_out(recorded)}",
        _source(recorded),
    )


def _left_out(recorded: Recorded) -> str:
    return f", {recorded.left_out} without an answer left out" if recorded.left_out else ""


def _source(recorded: Recorded) -> str:
    if not recorded.audits:
        return "the profile's: the trace has no audit"
    return f"that of {len(recorded.audits)} audited requests and those after them; else the profile's"


def _generated(
    options: Namespace, deployment: Deployment, found: Profiles
) -> tuple[Callable[[], Iterable[Request]], datetime, str, str]:
    workload, kinds = deployment.spec.workload, kinds_of(found)
    drift = Drift(
        options.generate, options.rate, options.shift_seconds, options.seed, workload.isl, workload.osl
    )
    said = f"{drift.requests} generated requests, {drift.rate:g} a second, seed {drift.seed}"
    return lambda: traffic.generated(drift, kinds), _BEGAN, said, "the profile's: the traffic is generated"


# -- what is shown -------------------------------------------------------------------------------------------


def _table(view: SimulationView) -> None:
    print(f"{view.name}: {view.traffic}")
    print(f"quality is {view.quality_is}; timings: {view.hardware}")
    print("\nDecisions, in order:")
    for each in view.decisions:
        about = f"{each['what']}: " if each["kind"] == "decision" else ""
        print(f"{each['at']:>10.1f} s  {about}{each['reason']}: {each['message']}")
    if view.changes:
        rows = [[f"{c['at']:.1f}", c["kind"], c["to"], c["reason"]] for c in view.changes]
        print("\n" + columns(("SECOND", "CHANGE", "TO", "REASON"), rows))
    print("\n" + columns(_TITLES, [_row(run) for run in (view.result, *view.ablations)]))
    if view.statics:
        best = view.best_static or "none: no option met all targets"
        print(f"\nThe best single option, served all the time, would have been {best}:")
        titles = ("OPTION", "MET", "TOK/S", "P99 MS", "QUALITY %", "SLO MISSED", "REFUSED")
        print(columns(titles, [_static(each) for each in view.statics]))


_TITLES = (
    "RUN", "CHANGES", "PER HOUR", "TOK/S", "P50 MS", "P99 MS", "TTFT P99", "QUALITY %", "SLO MISSED",
    "QUALITY MISSED", "REGRET %",
)  # fmt: skip


def _row(run: RunView) -> list[object]:
    f = run.figures
    return [
        run.name, run.changes, run.changes_per_hour, f["tokens_per_second"], f["e2e_ms"].get("p50"),
        f["e2e_ms"].get("p99"), f["ttft_ms"].get("p99"), f["quality_percent"], f["slo_violations"],
        f["quality_violations"], run.regret_percent,
    ]  # fmt: skip


def _static(static: dict[str, Any]) -> list[object]:
    return [
        static["option"], "yes" if static["met"] else "no", static["tokens_per_second"],
        static["e2e_ms"].get("p99"), static["quality_percent"], static["slo_violations"], static["refused"],
    ]  # fmt: skip
