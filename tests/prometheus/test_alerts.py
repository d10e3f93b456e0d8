"""The chart's alerts by promtool: they are rules, and each comes when it must and not before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import chart
from tests.tools import promtool

STORIES = Path(__file__).with_name("alerts.yaml")


def rules() -> dict[str, Any]:
    rendered = chart.render({"metrics": {"prometheusRule": {"enabled": True}}})
    return dict(chart.only(rendered, "PrometheusRule")["spec"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the rules as the chart renders them, and the stories."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    shutil.copy(STORIES, tmp_path)
    return tmp_path


def test_the_alerts_are_rules(folder: Path) -> None:
    said = _promtool("check", "rules", str(folder / "rules.yaml"))
    assert f"{len(_alerts())} rules found" in said


def test_each_alert_comes_when_it_must_and_not_before(folder: Path) -> None:
    assert "SUCCESS" in _promtool("test", "rules", str(folder / STORIES.name))


def test_every_alert_has_a_story_in_which_it_comes_and_one_in_which_it_does_not() -> None:
    looks = [
        look for story in yaml.safe_load(STORIES.read_text())["tests"] for look in story["alert_rule_test"]
    ]
    for expected in (True, False):
        assert {look["alertname"] for look in looks if bool(look["exp_alerts"]) is expected} == _alerts()


def _alerts() -> set[str]:
    return {rule["alert"] for group in rules()["groups"] for rule in group["rules"]}


def _promtool(*arguments: str) -> str:
    done = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
