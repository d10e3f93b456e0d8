"""Where a verb looks: this machine or a cluster; and what it says when there is none. No cluster is needed:
the API server of these kubeconfigs does not answer."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli import kubectl
from helios_cli import main as command
from helios_cli.cluster import patch, record
from helios_operator.api import annotations as by_hand
from helios_operator.api.types import Deployment, DeploymentSpec
from helios_operator.cluster import events
from helios_operator.local.admin import Change
from helios_operator.local.store import DEPLOYMENT, Store

from tests.cli.command import plugin
from tests.tools import kubectl as real_kubectl

NOBODY = "https://127.0.0.1:1"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an API server that is down, with a state folder that holds `chat` beside it."""
    monkeypatch.setenv("HELIOS_STATE", str(tmp_path / "state"))
    spec: dict[str, Any] = {"modelName": "chat", "candidates": []}
    obj = {
        "apiVersion": "helios.dev/v1alpha1",
        "kind": DEPLOYMENT,
        "metadata": {"name": "chat"},
        "spec": spec,
    }
    Store.open(tmp_path / "state" / "chat" / "objects", lambda new, _: new).apply(obj)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "down",
        "clusters": [{"name": "down", "cluster": {"server": NOBODY}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
        "contexts": [{"name": "down", "context": {"cluster": "down", "user": "me", "namespace": "team-a"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about what the user can put right."""
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_a_name_that_a_state_folder_holds_is_of_this_machine(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["status", "chat"]) == 0
    assert command.main(["status"]) == 0
    assert capsys.readouterr().out.count("Stopped") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "other"),
        ("status", "chat", "-n", "x"),
        ("status", "-A"),
        ("pause", "chat", "--context", "down"),
    ],
)
def test_another_name_or_a_clusters_option_is_of_the_cluster(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    line = said(capsys, *arguments)
    assert line.startswith(f"cluster: {NOBODY}: the API server does not answer")
    assert line.endswith("choose another with --context or --kubeconfig")


def test_without_a_kubeconfig_there_is_no_cluster(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig.unlink()
    assert "start it with `helios up FILE`" in said(capsys, "why", "other")
    expected = f"kubeconfig: there is no file {kubeconfig}; give one with --kubeconfig or KUBECONFIG"
    assert said(capsys, "why", "chat", "-n", "team-a") == expected


def test_a_kubeconfig_that_cannot_be_used_is_named(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "why", "chat", "--context", "up").startswith(f"context: 'up' is not in {kubeconfig};")
    kubeconfig.write_text("clusters: {")
    assert said(capsys, "why", "other").startswith(f"kubeconfig: {kubeconfig} cannot be used (")
    kubeconfig.write_text("[]")
    assert said(capsys, "why", "other").startswith(f"kubeconfig: {kubeconfig} cannot be used (")


def test_a_folder_and_a_cluster_at_once_are_refused(
    kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "why", "chat", "--state", ".", "-n", "x").endswith("; give one of them")
    assert said(capsys, "status", "chat", "-A").endswith("; give its --namespace")


def test_this_machine_needs_no_kubernetes_library(kubeconfig: Path) -> None:
    script = (
        "import sys; from helios_cli.main import main; main(['status', 'chat'])\n"
        "assert not {'torch', 'grpc', 'kubernetes', 'aiohttp', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_change_is_a_merge_patch_of_what_is_asked() -> None:
    asked = {by_hand.REASSESS: "2026-11-23T12:00:00Z"}
    assert patch(Change("chat", annotations=asked)) == {"metadata": {"annotations": asked}}
    paused = Change("chat", spec_path=("rollout", "paused"), spec_value=True)
    assert patch(paused) == {"spec": {"rollout": {"paused": True}}}


def test_an_event_is_told_as_it_was_decided() -> None:
    hd = Deployment("chat", "team-a", "u", 1, DeploymentSpec("chat"))
    about = {events.ACTION: "Set limits of revision 1", events.NUMBERS: '{"tokensPerSecond": 182}'}
    message = "Set limits of revision 1: Grow to 27"
    decided = record(events.event(hd, events.NORMAL, "QualityMissed", message, about))
    assert (decided.source, decided.about, decided.message) == (
        "decision",
        "Set limits of revision 1",
        "Grow to 27",
    )
    assert decided.numbers == {"tokensPerSecond": 182}
    told = record(events.event(hd, events.WARNING, "InvalidSpec", "spec.x: is wrong", {}))
    assert (told.source, told.about, told.message) == ("event", "chat", "spec.x: is wrong")


# -- kubectl helios -----------------------------------------------------------------------------------------


def test_the_installation_has_a_plugin() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["kubectl-helios"] == f"{kubectl.__name__}:{kubectl.main.__name__}"


def test_kubectl_runs_the_verbs_of_a_cluster(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(plugin(tmp_path)), prepend=":")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [real_kubectl(), "helios", *arguments], capture_output=True, text=True, check=False
        )

    listed = run()
    assert "usage: kubectl helios VERB" in listed.stdout
    assert "reassess" in listed.stdout
    assert "generate" not in listed.stdout
    assert "usage: kubectl helios why " in run("why", "--help").stdout
    assert "--state" not in run("why", "--help").stdout
    asked = run("status", "chat")  # which a state folder holds: not for kubectl
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith(f"error: cluster: {NOBODY}: ")
    assert "up: is not a verb; use one of status, " in run("up", "x.yaml").stderr
