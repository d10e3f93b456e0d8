"""The chart, rendered by the real helm: objects, notes and refusals."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.manifests import NEWEST
from tests.tools import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/helios"
NAMESPACE = "helios-system"

Manifest = dict[str, Any]


class RefusedError(Exception):
    """Helm's words about values that it does not take."""


def render(
    values: dict[str, Any] | None = None,
    release: str = "helios",
    kubernetes: str = NEWEST,
    namespace: str = NAMESPACE,
    chart: Path = CHART,
) -> list[Manifest]:
    """Every object, in helm's order."""
    options = ("--kube-version", kubernetes, "--namespace", namespace)
    text = _helm("template", json.dumps(values or {}), release, *options, chart=chart)
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]  # a tenth of the time


def taking(kubernetes: str, folder: Path) -> Path:
    """A copy of the chart that installs on an older cluster than it should: on that of the tests, whose core
    is old. Nothing else of it differs."""
    copy = Path(shutil.copytree(CHART, folder / CHART.name))
    about = copy / "Chart.yaml"
    version = f'kubeVersion: ">={kubernetes}.0-0"'
    about.write_text(re.sub(r"^kubeVersion: .*$", version, about.read_text(), flags=re.MULTILINE))
    return copy


def notes(values: dict[str, Any] | None = None, release: str = "helios") -> str:
    text = _helm("install", json.dumps(values or {}), release, "--dry-run=client", "--namespace", NAMESPACE)
    return text.partition("NOTES:\n")[2]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (manifest,) = of_kind(manifests, kind)
    return manifest


@cache
def _helm(verb: str, values: str, release: str, *options: str, chart: Path = CHART) -> str:
    command = [str(helm()), verb, release, str(chart), "--values", "-", *options]
    environment = {"KUBECONFIG": "/nonexistent", "HOME": "/nonexistent", "HELM_NO_PLUGINS": "1"}
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RefusedError(done.stderr)
    return done.stdout


def only_role(manifests: list[Manifest], kind: str) -> Manifest:
    """The operator's own, not those that extend users' roles."""
    (role,) = (role for role in of_kind(manifests, kind) if is_operators(role))
    return role


def is_operators(role: Manifest) -> bool:
    return "rbac" not in str(role["metadata"]["labels"])
