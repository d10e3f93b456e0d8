"""docs/tasks.md: what it shows is read, admitted and true; and the tasks in examples/ are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from helios_contract import answers, task_file, tasks
from helios_operator.api import parse
from helios_operator.api.validation import admit, warnings
from helios_operator.decide.facts.binomial import lower
from helios_operator.decide.policy import Policy

from tests.documentation.blocks import Block

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
EXAMPLE = (ROOT / "examples" / "tasks-smollm2.json").read_text()


def test_the_tasks_of_the_page_are_tasks(documented: list[Block]) -> None:
    (block,) = documented
    found = task_file.read(block.text)
    assert [task.name for task in found] == ["capital", "sum", "as-json"]
    capital, total, person = found
    for task, good, bad in (
        (capital, " Paris, and", "Rome"),
        (total, "4.", "The answer is 4"),
        (person, '{"name": "Eve", "age": 29}', '{"name": "Eve", "age": "29"}'),
    ):
        assert answers.judge(task.expect, good).passes
        assert not answers.judge(task.expect, bad).passes


def test_the_deployment_of_the_page_is_admitted(documented: list[Block]) -> None:
    (block,) = documented
    obj = yaml.safe_load(block.text)
    assert warnings(obj) == []
    spec = parse.deployment(admit(obj)).spec
    assert spec.slo.min_task_percent == 80
    assert spec.reassessment.task_probe is not None


def test_the_page_says_how_many_are_needed() -> None:
    rows = re.findall(r"^\| (\d+) \| (\S+) \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    assert int(rows[0][0]) == Policy().min_tasks
    for count, *cells in rows:
        for target, cell in zip((80, 90, 95), cells, strict=True):
            enough = [k for k in range(int(count) + 1) if 100 * lower(k, int(count), 0.95) >= target]
            assert cell == (str(enough[0]) if enough else "--"), (count, target)


@pytest.mark.parametrize(
    "bound",
    [
        *("MOST_CHARACTERS", "MOST_MESSAGES", "MOST_TOKENS", "MOST_EXPECTED"),
        *("MOST_PATTERN", "MOST_TASKS", "MOST_NAME", "MOST_TOKENS_IN_ALL"),
    ],
)
def test_the_page_knows_the_bounds(bound: str) -> None:
    assert f"{getattr(tasks, bound):,}" in PAGE


def test_the_example_holds_enough_tasks_to_tell() -> None:
    found = task_file.read(EXAMPLE)
    assert len(found) >= 24
    assert len({task.name.split("-")[0] for task in found}) > 8


def test_the_deployment_in_examples_asks_the_same() -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples" / "tasks.yaml").read_text()))
    (held,) = [obj for obj in documents if obj["kind"] == "ConfigMap"]
    (hd,) = [obj for obj in documents if obj["kind"] == "HeliosDeployment"]
    ref = hd["spec"]["profiling"]["tasks"]["configMapRef"]
    assert (ref["name"], list(held["data"])) == (held["metadata"]["name"], [ref["key"]])
    assert json.loads(held["data"][ref["key"]]) == json.loads(EXAMPLE)
