"""Tasks in a cluster: what a Job is told, from where it reads them, and what is read back of it."""

from __future__ import annotations

import json
from typing import Any

from helios_contract import task_file, tasks
from helios_contract.serves import Precision
from helios_operator.decide.snapshot import AskedOption, JobKind
from helios_operator.render import Manifest
from helios_operator.render.configmap import tasks_config_map
from helios_operator.render.job import job_spec, profiling_job
from helios_server.profile.task_options import TaskOption, parse_options

from tests.render import objects

TASK: dict[str, Any] = {
    "name": "sum",
    "prompt": "2 + 2 =",
    "expect": {"contains": "4", "number": {"max": 4.5}},
}
ASKED = objects.job_spec(
    JobKind.TASKS,
    prompts_digest="",
    tasks_digest="sha256:4444",
    options=(AskedOption("b", 30, Precision()), AskedOption("a", 8, Precision("int8", "int8"))),
)


def job(**profiling: Any) -> Manifest:
    hd = objects.deployment(profiling=profiling)
    return profiling_job(hd, ASKED, objects.CPU, objects.installation())


def told(made: Manifest) -> dict[str, str]:
    (container,) = made["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    return dict(zip(command[2::2], command[3::2], strict=True))


def volume(made: Manifest) -> Manifest:
    volumes = {each["name"]: each for each in made["spec"]["template"]["spec"]["volumes"]}
    return dict(volumes["tasks"]["configMap"])


def test_a_job_is_told_whom_to_ask_what() -> None:
    options = told(job(tasks={"inline": [TASK]}))
    assert options["--kind"] == "tasks"
    assert options["--tasks-file"] == "/etc/helios/tasks/tasks.json"
    assert options["--tasks-digest"] == "sha256:4444"
    assert parse_options(options["--options"]) == (
        TaskOption("b", 30, Precision()),
        TaskOption("a", 8, Precision("int8", "int8")),
    )
    assert not {"--prompts-file", "--prompts-digest", "--precisions"} & options.keys()


def test_tasks_are_mounted_from_where_they_are() -> None:
    assert volume(job(tasks={"inline": [TASK]}))["name"] == "chat-inline-tasks"
    mine = volume(job(tasks={"configMapRef": {"name": "mine", "key": "t.yaml"}}))
    assert mine == {"name": "mine", "items": [{"key": "t.yaml", "path": "tasks.json"}]}


def test_inline_tasks_are_carried_as_they_are() -> None:
    written = tasks_config_map(objects.deployment(profiling={"tasks": {"inline": [TASK]}}))
    assert written["metadata"]["name"] == "chat-inline-tasks"
    read = task_file.read(written["data"]["tasks.json"])
    assert tasks.digest(read) == tasks.digest(tasks.from_document([TASK]))


def test_what_a_job_was_asked_is_read_back() -> None:
    assert job_spec(json.loads(json.dumps(job(tasks={"inline": [TASK]})))) == ASKED
