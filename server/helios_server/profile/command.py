"""`helios profile`: reads the arguments, measures what they ask for, hands the result document over.

Called by `profile.main`. A Job asks for one kind and takes the document from --result; a person names a model
and reads tables. Whatever the user can put right ends as a failure document and status 2, never as a trace.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from helios_contract.results import Quality, Result, Timing, Timings
from helios_contract.serves import REFERENCE, Precision

from helios_server.engine import host_memory
from helios_server.errors import HeliosError, InvalidRequest
from helios_server.models.linear import Numerics
from helios_server.planning.timing import Workload
from helios_server.profile import document, failed_answers, report
from helios_server.profile.candidates import Candidate, named_by_hand, parse_candidates
from helios_server.profile.inspect import inspect
from helios_server.profile.opened import OpenCandidate, open_backbone, open_candidate
from helios_server.profile.outlook import outlook
from helios_server.profile.precisions import parse_precisions
from helios_server.profile.prompts import check_digest, from_file, from_pod, token_from
from helios_server.profile.quality import QualitySettings, measure_quality
from helios_server.profile.task_options import every_depth, parse_options
from helios_server.profile.tasks import Answered, TaskSettings, measure_tasks
from helios_server.profile.tasks import from_file as tasks_from
from helios_server.profile.timing import measure_timings
from helios_server.profile.timing_settings import TimingSettings
from helios_server.progress import Progress

_KINDS = ("inspect", "timing", "quality", "tasks")


def run(argv: Sequence[str] | None) -> int:
    """Runs one profile and returns the exit status."""
    options = _parser().parse_args(argv)
    host_memory.share_one_heap()
    progress = Progress()
    kind = options.kind or "quality"
    try:
        candidates = _candidates(options)
        _set_threads(options.threads)
        precisions = _precisions(options)
        quality: Quality | None = None
        for kind in _kinds(options):
            if kind == "tasks":
                _ask(options, candidates, precisions, progress)
                continue
            opened = () if kind == "inspect" else open_backbone(candidates, options.volumes)
            result = _measure(kind, options, candidates, opened, precisions, progress)
            if options.result is not None:
                document.write(options.result, document.fitted(result))
            report.show(result, options.output)
            if isinstance(result, Quality):
                quality = result
            if isinstance(result, Timing | Timings) and options.output == "table":
                _show_outlook(options, opened, result, quality)
    except HeliosError as error:
        return _fail(kind, options, error)
    return 0


def _measure(
    kind: str,
    options: argparse.Namespace,
    candidates: tuple[Candidate, ...],
    opened: tuple[OpenCandidate, ...],
    precisions: tuple[Precision, ...],
    progress: Progress,
) -> Result:
    if kind == "inspect":
        return inspect(candidates, options.volumes, options.max_context)
    if kind == "quality":
        return measure_quality(opened, _prompts(options), _quality_settings(options), progress, precisions)
    return measure_timings(opened, _timing_settings(options), progress, precisions)


def _show_outlook(
    options: argparse.Namespace,
    opened: tuple[OpenCandidate, ...],
    timed: Timing | Timings,
    quality: Quality | None,
) -> None:
    limit, workload = _timing_settings(options).limit_bytes(), Workload(options.isl, options.osl)
    report.expected(outlook(opened, timed, quality, limit, workload), limit, workload)


def _ask(
    options: argparse.Namespace,
    candidates: tuple[Candidate, ...],
    precisions: tuple[Precision, ...],
    progress: Progress,
) -> None:
    """Candidates need not share a backbone. A person sees the answers that fail too."""
    found = _answered(options, candidates, precisions, progress)
    if options.result is not None:
        document.write(options.result, document.fitted(found.result))
    report.show(found.result, options.output)
    if options.result is None and options.output == "table":
        failed_answers.show(found)


def _answered(
    options: argparse.Namespace,
    candidates: tuple[Candidate, ...],
    precisions: tuple[Precision, ...],
    progress: Progress,
) -> Answered:
    if options.tasks_file is None:
        raise InvalidRequest("tasks-file", "is missing", "Give --tasks FILE")
    asked = tasks_from(options.tasks_file, options.tasks_digest)
    opened = [open_candidate(candidate, options.volumes) for candidate in candidates]
    chosen = parse_options(options.options) if options.options else every_depth(opened, precisions)
    settings = TaskSettings(options.device, options.dtype, options.memory_mib, options.max_context)
    return measure_tasks(opened, chosen, asked, settings, progress)


def _fail(kind: str, options: argparse.Namespace, error: HeliosError) -> int:
    print(f"error: {error}", file=sys.stderr)
    failed = document.failure(kind, error)
    if options.result is not None and error.field != "result":
        document.write(options.result, failed)
    if options.output == "json":
        report.show(failed, "json")
    return 2


def _kinds(options: argparse.Namespace) -> tuple[str, ...]:
    """What a Job asks for; a person without --kind gets timing, and quality where there are prompts, or what
    tasks come to where there are tasks."""
    if options.kind:
        return (options.kind,)
    if options.result is not None:
        raise InvalidRequest("kind", "is missing", f"Give one of {', '.join(_KINDS)} with --result")
    tasks = ("tasks",) if options.tasks_file else ()
    prompts = ("quality", "timing") if options.prompts_file or options.prompts_from else ()
    return (*prompts, *tasks) or ("timing",)


def _candidates(options: argparse.Namespace) -> tuple[Candidate, ...]:
    if options.candidates and options.model:
        raise InvalidRequest("model", "is given beside --candidates", "Give one of the two")
    if options.candidates:
        return parse_candidates(options.candidates)
    if options.model:
        return named_by_hand(options.model, options.revision, options.exits, options.exit_layers)
    raise InvalidRequest("model", "is missing", "Name a model with --model URI, or several with --candidates")


def _precisions(options: argparse.Namespace) -> tuple[Precision, ...]:
    """What is asked for. Raises HeliosError by name for what there is not, or not on this device."""
    precisions = parse_precisions(options.precisions)
    for precision in precisions:
        Numerics.of(options.device, options.dtype, precision)
    return precisions


def _prompts(options: argparse.Namespace) -> tuple[str, ...]:
    if bool(options.prompts_file) == bool(options.prompts_from):
        problem = "are given twice" if options.prompts_file else "are missing"
        raise InvalidRequest("prompts", problem, "Give either --prompts-file or --prompts-from")
    if options.prompts_file:
        prompts = from_file(options.prompts_file)
    else:
        token = token_from(options.control_token_file)
        prompts = from_pod(options.prompts_from, token, options.prompts_digest)
    check_digest(prompts, options.prompts_digest)
    return prompts


def _quality_settings(options: argparse.Namespace) -> QualitySettings:
    return QualitySettings(
        device=options.device,
        dtype=options.dtype,
        memory_mib=options.memory_mib,
        max_context=options.max_context,
        # Whoever waits for a Job's document does not wait for what stands in its log alone.
        generated=options.result is None or options.search == "thorough",
    )


def _timing_settings(options: argparse.Namespace) -> TimingSettings:
    return TimingSettings(
        device=options.device,
        dtype=options.dtype,
        memory_mib=options.memory_mib,
        max_context=options.max_context,
        search=options.search,
        watts=options.watts,
    )


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="helios profile",
        description="Measures what the exits of a model cost in quality, time and energy.",
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--kind", choices=_KINDS, help="default: by the other arguments, else timing")
    what.add_argument("--model", metavar="URI", help="file://, pvc:// or hf://")
    what.add_argument("--revision")
    what.add_argument("--exits", metavar="URI", action="append", default=[], help="a head bundle; repeatable")
    what.add_argument("--exit-layers", metavar="K,K", type=_layers, default=(), help="default: the bundle's")
    what.add_argument(
        "--candidates", metavar="JSON", help="a list of {name, uri, revision, exits, exitLayers}"
    )
    what.add_argument(
        "--precisions",
        metavar="W/KV,W/KV",
        default=str(REFERENCE),
        help="weights auto | int8 | int4, KV cache auto | int8 | fp8 (default: auto/auto)",
    )
    prompts = parser.add_argument_group("prompts, for quality")
    prompts.add_argument(
        "--prompts-file", metavar="FILE", type=Path, help="a JSON list, or one prompt per line"
    )
    prompts.add_argument("--prompts-from", metavar="HOST:PORT", help="Control port of a serving pod")
    prompts.add_argument("--control-token-file", metavar="FILE", type=Path)
    prompts.add_argument(
        "--prompts-digest", metavar="DIGEST", default="", help="expected digest of the prompts"
    )
    tasks = parser.add_argument_group("tasks")
    tasks.add_argument(
        "--tasks", "--tasks-file", metavar="FILE", type=Path, dest="tasks_file", help="YAML or JSON"
    )
    tasks.add_argument("--tasks-digest", metavar="DIGEST", default="", help="expected digest of the tasks")
    tasks.add_argument(
        "--options",
        metavar="JSON",
        help="a list of {candidate, layerBudget, weightDtype, kvCacheDtype} (default: every depth)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu")
    machine.add_argument("--dtype", help="default: auto, as helios serve resolves it")
    machine.add_argument("--threads", metavar="N", type=_positive, help="default: torch's own")
    machine.add_argument("--memory-mib", metavar="N", type=_positive, help="memory of the process")
    machine.add_argument(
        "--max-context", metavar="N", type=_positive, help="limit of prompt and output (default: the model's)"
    )
    machine.add_argument(
        "--volumes", metavar="DIR", type=Path, help="folder in which pvc://claim is a folder"
    )
    machine.add_argument(
        "--watts", metavar="W", type=float, help="power of one busy core, if there is no counter"
    )
    timing = parser.add_argument_group("timing")
    timing.add_argument("--isl", metavar="N", type=_positive, default=512, help="prompt tokens (default 512)")
    timing.add_argument("--osl", metavar="N", type=_positive, default=128, help="new tokens (default 128)")
    machine.add_argument(
        "--search", choices=("rapid", "thorough"), default="rapid", help="how long to measure"
    )
    parser.add_argument("--result", metavar="FILE", type=Path, help="file for the result document")
    parser.add_argument("--output", choices=("json", "table"), default="table")
    return parser


def _layers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value
