"""`helios report` of a cluster: the same file, from what its API server keeps."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml
from helios_cli import main as command
from helios_operator.cluster.kinds import EVENT

from tests.cli.pages import Page
from tests.cluster.fake.objects import NAMESPACE, deployment
from tests.cluster.fake.scene import scene


async def test_a_report_of_a_cluster_says_what_its_status_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOS_STATE", str(tmp_path / "none"))
    file, config = tmp_path / "report.html", tmp_path / "kubeconfig"
    async with scene() as place:
        place.create(deployment())
        status = await place.ready()
        config.write_text(yaml.safe_dump(_kubeconfig(place.client.server)))
        arguments = ["report", "chat", "-n", NAMESPACE, "--kubeconfig", str(config), "--output", str(file)]
        assert await asyncio.to_thread(command.main, arguments) == 0
        events = place.store.list(EVENT, NAMESPACE)
    page, active = Page(file.read_text()), status["active"]
    rows = dict(page.tables["What serves"])
    told = rows["Candidate"], rows["Layers"], rows["Batch"], rows["Phase"]
    serves = active["candidate"], str(active["layerBudget"]), str(active["maxBatchSize"]), status["phase"]
    assert told == serves
    assert "It does not run." not in page.text
    best = {c["name"]: c for c in status["candidates"]}
    for row in page.table("Candidates, as the operator last wrote them"):
        candidate = best[row["Candidate"]]
        assert (row["Quality %"], row["Layers"]) == (
            str(candidate["qualityPercent"]),
            str(candidate["layerBudget"]),
        )
    options = page.table("Options")
    (serving,) = [row for row in options if row["Candidate"].endswith(" (serves)")]
    assert (serving["Layers"], serving["Verdict"]) == (str(active["layerBudget"]), "feasible")
    changes = [(row["Kind"], row["Result"]) for row in page.table("Changes, oldest first")]
    assert changes == [(entry["kind"], entry["result"]) for entry in status["history"]]
    said = {row["Reason"] for row in page.table("Decisions and events, newest first")}
    assert said <= {event["reason"] for event in events}
    assert re.search(r"Decisions and events: \d+, kept since ", page.text)


def _kubeconfig(server: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": NAMESPACE}}],
    }
