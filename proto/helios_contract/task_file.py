"""Tasks as a person writes them, YAML or JSON, checked: everything that is wrong is named by its field.

Called for `--tasks-file` by profiling Jobs, for the text of a ConfigMap and for what a spec holds by the
operator, by serving pods for what they are given. The text comes from anywhere: none may take long, or much
memory. It must not judge an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from helios_contract import answers, tasks
from helios_contract.problems import Problem
from helios_contract.strict_yaml import StrictLoader
from helios_contract.tasks import Task

_TASK = ("name", "prompt", "messages", "maxTokens", "expect")
_EXPECTATIONS = ("equals", "contains", "regex", "number", "jsonSchema")
_NUMBERS = ("min", "max", "value", "tolerance")
_MOST_TEXT = 4 * tasks.MOST_BYTES
"""Characters of a file: indentation takes some."""
_SAID = 20
"""Problems that a message names; a file that is none has hundreds."""


class WrongTasks(ValueError):
    """All that is wrong with some tasks."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:_SAID])
        super().__init__("\n".join(map(str, self.problems)))


def read(text: str, source: str = "tasks") -> tuple[Task, ...]:
    """The tasks of a text. `source`: what to call it. WrongTasks names all that is wrong."""
    found = _loaded(text, source)
    listed = found.get("tasks") if isinstance(found, Mapping) else found
    if isinstance(found, Mapping) and (strangers := sorted(set(map(str, found)) - {"tasks"})):
        raise WrongTasks(
            [Problem(f"{source}.{name}", "is not known", "write tasks: alone") for name in strangers]
        )
    return checked(listed, "tasks")


def checked(listed: Any, path: str) -> tuple[Task, ...]:
    """The same of a list that was read already. `path`: of it within its document."""
    if problems := list(_problems(listed, path)):
        raise WrongTasks(problems)
    found = tasks.from_document(listed)
    if problems := list(_too_much(found, path)):
        raise WrongTasks(problems)
    return found


def _too_much(found: Sequence[Task], path: str) -> Iterator[Problem]:
    size = len(tasks.document(found).encode(errors="surrogatepass"))
    if size > tasks.MOST_BYTES:
        fix = f"give fewer, or shorter ones: at most {tasks.MOST_BYTES:,}"
        yield Problem(path, f"take {size:,} bytes as JSON", fix)
    tokens = sum(task.max_tokens for task in found)
    if tokens > tasks.MOST_TOKENS_IN_ALL:
        fix = f"give fewer tasks, or a lower maxTokens: at most {tasks.MOST_TOKENS_IN_ALL:,}"
        yield Problem(path, f"ask for {tokens:,} tokens in all", fix)


# -- YAML and JSON -------------------------------------------------------------------------------------------


def _loaded(text: str, source: str) -> Any:
    if len(text) > _MOST_TEXT:
        fix = f"use at most {_MOST_TEXT:,}"
        raise WrongTasks([Problem(source, f"has {len(text):,} characters", fix)])
    try:
        return yaml.load(text, _Loader) if text.lstrip()[:1] not in ("{", "[") else _json(text)
    except (yaml.YAMLError, ValueError) as error:
        what = " ".join(str(error).split())[:300]
        raise WrongTasks([Problem(source, f"is neither YAML nor JSON ({what})", "correct it")]) from None
    except RecursionError:
        raise WrongTasks([Problem(source, "is nested too deep", "write a list of tasks")]) from None


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError:
        return yaml.load(text, _Loader)  # flow style without quotes


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for index, (key, _) in enumerate(pairs):
        if key in {earlier for earlier, _ in pairs[:index]}:
            raise ValueError(f"the key {key!r} stands twice")
    return dict(pairs)


class _Loader(StrictLoader):
    """An alias is an error too: a few of them hold more than any memory does."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(problem="an alias is not read here")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


# -- tasks ---------------------------------------------------------------------------------------------------


def _problems(listed: Any, path: str) -> Iterator[Problem]:
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        what = "holds no task" if listed in (None, [], ()) else f"is {_kind(listed)}, not a list of tasks"
        yield Problem(path, what, "write at least one {name, prompt or messages, expect}")
        return
    if len(listed) > tasks.MOST_TASKS:
        yield Problem(path, f"has {len(listed)} tasks", f"give at most {tasks.MOST_TASKS}")
        return
    names: set[str] = set()
    for index, task in enumerate(listed):
        at = f"{path}[{index}]"
        yield from _task(task, at)
        name = task.get("name") if isinstance(task, Mapping) else None
        if isinstance(name, str):
            if name in names:
                yield Problem(f"{at}.name", f"{name!r} stands twice", "give each task its own name")
            names.add(name)


def _task(task: Any, at: str) -> Iterator[Problem]:
    if not isinstance(task, Mapping):
        yield Problem(at, f"is {_kind(task)}, not a task", "write {name, prompt or messages, expect}")
        return
    yield from _strangers(task, _TASK, at)
    yield from _text(task, "name", at, tasks.MOST_NAME, required=True)
    yield from _text(task, "prompt", at, tasks.MOST_CHARACTERS)
    if ("prompt" in task) == ("messages" in task):
        which = "both prompt and messages" if "prompt" in task else "neither prompt nor messages"
        yield Problem(at, f"has {which}", "give one of the two")
    if "messages" in task:
        yield from _messages(task["messages"], f"{at}.messages")
    most = tasks.MOST_TOKENS
    given = task.get("maxTokens", 1)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        problem = f"{_shown(given)} is not a whole number from 1 to {most}"
        yield Problem(f"{at}.maxTokens", problem, "write how many tokens the answer may have")
    yield from _expect(task.get("expect"), f"{at}.expect")


def _messages(given: Any, at: str) -> Iterator[Problem]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        yield Problem(at, "is no list of messages", "write at least one {role, content}")
        return
    if len(given) > tasks.MOST_MESSAGES:
        yield Problem(at, f"has {len(given)} messages", f"give at most {tasks.MOST_MESSAGES}")
    for index, message in enumerate(given):
        here = f"{at}[{index}]"
        if not isinstance(message, Mapping):
            yield Problem(here, f"is {_kind(message)}, not a message", "write {role, content}")
            continue
        yield from _strangers(message, ("role", "content"), here)
        if message.get("role") not in tasks.ROLES:
            problem = f"{_shown(message.get('role'))} is no role"
            yield Problem(f"{here}.role", problem, f"use one of {', '.join(tasks.ROLES)}")
        yield from _text(message, "content", here, tasks.MOST_CHARACTERS, required=True)
    contents = [each.get("content") for each in given if isinstance(each, Mapping)]
    if sum(len(text) for text in contents if isinstance(text, str)) > tasks.MOST_CHARACTERS:
        yield Problem(at, "are too long", f"use at most {tasks.MOST_CHARACTERS} characters in all")


def _expect(given: Any, at: str) -> Iterator[Problem]:
    if not isinstance(given, Mapping) or not given:
        what = f"is {_kind(given)}, not expectations" if given not in (None, {}) else "is missing"
        yield Problem(at, what, f"say what must hold of the answer: {', '.join(_EXPECTATIONS)}")
        return
    yield from _strangers(given, _EXPECTATIONS, at)
    yield from _text(given, "equals", at, tasks.MOST_EXPECTED)
    yield from _text(given, "contains", at, tasks.MOST_EXPECTED)
    pattern = list(_text(given, "regex", at, tasks.MOST_PATTERN))
    yield from pattern
    if "regex" in given and not pattern:
        yield from _usable(answers.check_pattern, given["regex"], f"{at}.regex")
    if "number" in given:
        yield from _number(given["number"], f"{at}.number")
    if "jsonSchema" in given:
        yield from _schema(given["jsonSchema"], f"{at}.jsonSchema")


def _number(given: Any, at: str) -> Iterator[Problem]:
    fix = "write {min, max}, or {value, tolerance}"
    if not isinstance(given, Mapping):
        yield Problem(at, f"is {_kind(given)}, not a range", fix)
        return
    yield from _strangers(given, _NUMBERS, at)
    wrong = [name for name in _NUMBERS if name in given and not _is_number(given[name])]
    for name in wrong:
        yield Problem(f"{at}.{name}", f"{_shown(given[name])} is not a number", "write a finite number")
    bounds, value = {"min", "max"} & given.keys(), {"value", "tolerance"} & given.keys()
    if bool(bounds) == bool(value) or (value and "value" not in given):
        yield Problem(at, "is no range", fix)
    elif not wrong and len(bounds) == 2 and given["min"] > given["max"]:
        yield Problem(at, f"min {given['min']} is above max {given['max']}", "exchange them")
    elif not wrong and given.get("tolerance", 0) < 0:
        yield Problem(f"{at}.tolerance", f"{given['tolerance']} is below 0", "write how far off is right")


def _schema(given: Any, at: str) -> Iterator[Problem]:
    if not isinstance(given, Mapping) or not given:
        what = "is empty" if given == {} else f"is {_kind(given)}, not a JSON schema"
        yield Problem(at, what, "write an object such as {type: object}")
        return
    try:
        size = len(
            json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
        )
    except (TypeError, ValueError, RecursionError):
        yield Problem(at, "is not JSON", "write a JSON schema")
        return
    if size > tasks.MOST_SCHEMA:
        yield Problem(at, f"takes {size:,} bytes", f"use at most {tasks.MOST_SCHEMA:,}")
        return
    yield from _usable(answers.check_schema, given, at)


def _usable(check: Callable[[Any], None], given: Any, at: str) -> Iterator[Problem]:
    try:
        check(given)
    except answers.Unusable as error:
        yield Problem(f"{at}.{error.path}" if error.path else at, error.problem, error.fix)


def _strangers(given: Mapping[Any, Any], known: Sequence[str], at: str) -> Iterator[Problem]:
    for key in given:
        if key not in known:
            yield Problem(f"{at}.{key}", "is not known here", f"use {', '.join(known)}")


def _text(
    given: Mapping[Any, Any], key: str, at: str, most: int, required: bool = False
) -> Iterator[Problem]:
    value = given.get(key)
    if key not in given and not required:
        return
    if not isinstance(value, str):
        problem = "is missing" if value is None else f"{_shown(value)} is not a text"
        yield Problem(f"{at}.{key}", problem, "write a text" if value is None else "write it in quotes")
    elif not value.strip():
        yield Problem(f"{at}.{key}", "is empty", "fill it in, or remove it")
    elif len(value) > most:
        yield Problem(f"{at}.{key}", f"has {len(value)} characters", f"use at most {most}")


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
