"""One oldest Kubernetes: what the chart takes, the docs name and the tests check against."""

from __future__ import annotations

import filecmp
import re
from pathlib import Path

import pytest
import yaml

from tests.chart import chart
from tests.manifests import OLDEST

BEFORE = f"1.{int(OLDEST.partition('.')[2]) - 1}"


def test_chart_docs_and_tests_name_the_same() -> None:
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["kubeVersion"] == f">={OLDEST}.0-0"
    for page in ("install", "platform"):
        text = (chart.ROOT / f"docs/{page}.md").read_text()
        # What a page shows may itself be newer than what is needed, and says so: "Kubernetes 1.30 and later".
        asked = re.findall(r"^(?:- )?Kubernetes (1\.\d+) (?:or|and) later", text, re.MULTILINE)
        assert asked == [OLDEST], page
        assert set(re.findall(r"schemas of (1\.\d+) and", text)) <= {OLDEST}


def test_helm_refuses_an_older_cluster_and_takes_the_oldest() -> None:
    with pytest.raises(chart.RefusedError, match=rf"kubeVersion: >={re.escape(OLDEST)}.*incompatible"):
        chart.render(kubernetes=BEFORE)
    assert chart.render(kubernetes=OLDEST)


def test_what_an_older_core_gets_is_the_chart_but_for_that_line(tmp_path: Path) -> None:
    copy = chart.taking("1.20", tmp_path)
    compared = filecmp.dircmp(chart.CHART, copy)
    assert (compared.diff_files, compared.left_only, compared.right_only) == (["Chart.yaml"], [], [])
    both = (path.read_text().splitlines() for path in (chart.CHART / "Chart.yaml", copy / "Chart.yaml"))
    changed = [pair for pair in zip(*both, strict=True) if pair[0] != pair[1]]
    assert changed == [(f'kubeVersion: ">={OLDEST}.0-0"', 'kubeVersion: ">=1.20.0-0"')]
    assert chart.render(kubernetes="1.20", chart=copy) == chart.render(kubernetes=OLDEST)
