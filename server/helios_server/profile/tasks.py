"""Tasks: which of the user's own tasks each option passes, answered greedily.

Called by `command.py`. One backbone in one precision is in memory at a time, as deep as the options need it.
The document has the passes alone; answers are shown to whoever runs this by hand, and to nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from helios_contract import results, task_file, tasks
from helios_contract.answers import Judged, judge
from helios_contract.results import OptionPasses
from helios_contract.serves import Precision
from helios_contract.task_file import WrongTasks
from helios_contract.tasks import Task

from helios_server.engine.host_memory import anonymous_bytes
from helios_server.engine.offline import Weights
from helios_server.errors import DataError, HeliosError, InvalidRequest, OutOfMemoryBudget, RequestFailed
from helios_server.exits.head import BareHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.task_prompt import ids_of
from helios_server.models.tokenizer import Tokenizer
from helios_server.planning.memory import MIB
from helios_server.profile.answered import PIECE_TOKENS, ROWS, Question, answers, tokens_at_once
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.precisions import Omissions
from helios_server.profile.task_options import TaskOption, of_candidates
from helios_server.progress import Progress

_LARGEST_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """memory_mib: the process's limit, None for none; max_context: tokens to be served, None for the
    model's."""

    device: str = "cpu"
    dtype: str | None = None
    memory_mib: int | None = None
    max_context: int | None = None


@dataclass(frozen=True)
class Answer:
    """text: of the model, as it is judged; judged: whether it passes, or why not."""

    text: str
    judged: Judged


@dataclass(frozen=True)
class Answered:
    """What a run by hand shows beside the document: every answer of every option that could be asked, in the
    tasks' order."""

    tasks: tuple[Task, ...]
    answers: Mapping[TaskOption, tuple[Answer, ...]]
    result: results.Tasks


def from_file(path: Path, digest: str = "") -> tuple[Task, ...]:
    """The tasks of a file, checked. digest: refuses any others; "" takes any."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            problem = f"{path} has {path.stat().st_size:,} bytes"
            raise InvalidRequest("tasks-file", problem, f"Give at most {_LARGEST_FILE_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "tasks-file", f"{path} cannot be read ({error})", "Give tasks in YAML or JSON"
        ) from None
    found = read(text)
    if digest and tasks.digest(found) != digest:
        problem = f"is {digest}, the tasks have {tasks.digest(found)}"
        raise InvalidRequest("tasks-digest", problem, "Give the tasks it names")
    return found


def read(text: str) -> tuple[Task, ...]:
    """The tasks of a text. InvalidRequest names the first fault by its field, and tells the others."""
    try:
        return task_file.read(text, "tasks-file")
    except WrongTasks as wrong:
        first, *others = wrong.problems
        more = f" ({len(others)} more: {'; '.join(map(str, others))})" if others else ""
        raise InvalidRequest(first.field, first.problem, f"{first.fix}{more}") from None


def measure_tasks(
    opened: Sequence[OpenCandidate],
    options: Sequence[TaskOption],
    asked: Sequence[Task],
    settings: TaskSettings,
    progress: Progress,
) -> Answered:
    """The options in their order; those of one backbone in one precision, one after the other, share what is
    loaded, and are left out together where that cannot be."""
    by_name = {each.candidate.name: each for each in opened}
    of_candidates(options, by_name)
    found: dict[TaskOption, tuple[Answer, ...]] = {}
    omitted = Omissions(progress)
    for (_, precision), group in groupby(options, lambda option: _loaded_as(option, by_name)):
        try:
            passed = progress.part(len(found), len(options))
            found |= _answered(tuple(group), precision, by_name, asked, settings, progress, passed)
        except HeliosError as error:
            omitted.add(precision, error)
    if not found:
        raise omitted.first
    rows = tuple(
        _row(option, by_name[option.candidate], found[option]) for option in options if option in found
    )
    result = results.Tasks(
        tasks_digest=tasks.digest(asked), tasks=len(asked), rows=rows, left_out=omitted.named
    )
    return Answered(tuple(asked), found, result)


def _loaded_as(option: TaskOption, by_name: Mapping[str, OpenCandidate]) -> tuple[str, Precision]:
    return by_name[option.candidate].checkpoint.fingerprint, option.precision


def _row(option: TaskOption, candidate: OpenCandidate, found: Sequence[Answer]) -> OptionPasses:
    is_full = option.layer_budget == candidate.checkpoint.config.num_layers
    return OptionPasses(
        candidate=option.candidate,
        exits_digest="" if is_full else candidate.exits_digest,
        layer_budget=option.layer_budget,
        passes=tasks.bits([answer.judged.passes for answer in found]),
        weight_dtype=option.precision.weight_dtype,
        kv_cache_dtype=option.precision.kv_cache_dtype,
    )


def _answered(
    options: Sequence[TaskOption],
    precision: Precision,
    by_name: Mapping[str, OpenCandidate],
    asked: Sequence[Task],
    settings: TaskSettings,
    progress: Progress,
    passed: Callable[[float], None],
) -> dict[TaskOption, tuple[Answer, ...]]:
    checkpoint = by_name[options[0].candidate].checkpoint
    tokenizer = Tokenizer.open(checkpoint.path)
    context = checkpoint.config.context(settings.max_context)
    questions = read_questions(tokenizer, asked, context)
    backbone = _load(
        checkpoint, max(option.layer_budget for option in options), precision, questions, settings
    )
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    found = {}
    for option in options:
        candidate = by_name[option.candidate]
        is_full = option.layer_budget == checkpoint.config.num_layers
        head = BareHead(backbone) if is_full else candidate.head(option.layer_budget, backbone)
        told = answers(Weights(backbone, head), option.layer_budget, questions)
        found[option] = tuple(_judged(tokenizer, asked, told))
        count = sum(answer.judged.passes for answer in found[option])
        progress(f"{option}: {count} of {len(asked)} tasks")
        passed(len(found))
    return found


def _judged(
    tokenizer: Tokenizer, asked: Sequence[Task], told: Iterator[tuple[int, ...] | RequestFailed]
) -> Iterator[Answer]:
    for task, ids in zip(asked, told, strict=True):
        if isinstance(ids, RequestFailed):
            yield Answer("", Judged(f"no answer: {ids}"))
            continue
        text = tokenizer.decode(ids)
        yield Answer(text, judge(task.expect, text))


def read_questions(tokenizer: Tokenizer, asked: Sequence[Task], max_context: int) -> tuple[Question, ...]:
    """Tasks as the model reads them: a prompt as /v1/completions would, a chat as /v1/chat/completions.

    Refuses one that, with its answer, is longer than the model's context.
    """
    return tuple(_question(tokenizer, task, f"tasks[{at}]", max_context) for at, task in enumerate(asked))


def _question(tokenizer: Tokenizer, task: Task, field: str, max_context: int) -> Question:
    ids = ids_of(tokenizer, task, field)
    if len(ids) + task.max_tokens > max_context:
        problem = f"takes {len(ids)} tokens and {task.max_tokens} of an answer, the model reads {max_context}"
        fix = "Shorten it, remove the candidate, or raise --max-context (limits.maxContextTokens)"
        raise InvalidRequest(f"{field}.{'messages' if task.messages else 'prompt'}", problem, fix)
    return Question(ids, task.max_tokens)


def _load(
    checkpoint: Checkpoint,
    layers: int,
    precision: Precision,
    questions: Sequence[Question],
    settings: TaskSettings,
) -> Backbone:
    backbone = Backbone.load(checkpoint, 1, settings.device, settings.dtype, settings.max_context, precision)
    _check_memory(backbone, layers, questions, settings.memory_mib)
    backbone.attach([backbone.load_layer(index) for index in range(1, layers)])
    return backbone


def _check_memory(
    backbone: Backbone, layers: int, questions: Sequence[Question], memory_mib: int | None
) -> None:
    """What is resident now, the other layers, keys and values of a batch, and what a step adds."""
    if memory_mib is None or backbone.numerics.device.type != "cpu":
        return
    config, width = backbone.config, backbone.numerics.activations.itemsize
    pages = tokens_at_once(questions) // backbone.layout.page_tokens
    step = PIECE_TOKENS * (3 * config.intermediate_size + 8 * config.hidden_size) * width
    logits = 2 * ROWS * config.vocab_size * 4
    need = (
        anonymous_bytes()
        + layers * (backbone.layer_bytes + pages * backbone.layout.page_bytes)
        + step
        + logits
    )
    if need > memory_mib * MIB:
        raise OutOfMemoryBudget(
            "memory-mib",
            f"answering tasks at {layers} layers takes {need // MIB + 1} MiB, {memory_mib} are given",
            "Raise it, or give shorter prompts or lower maxTokens",
        )
