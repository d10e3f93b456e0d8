"""The chart, installed by the real helm with images that were built from this working tree."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chart.chart import CHART, taking
from tests.cluster.on_node import means
from tests.manifests import OLDEST
from tests.tools import helm, kubectl

REGISTRY = "localhost"
"""Of the images' names alone: nothing is pulled."""
NAMESPACE = "helios-system"
NAME = "helios"


class Release:
    """While it is installed, an operator watches every namespace. `chart`: its folder."""

    def __init__(self, chart: Path) -> None:
        self.chart = chart
        self.installed = False

    def install(self) -> None:
        """CRDs that are there already, by whatever way, become the release's."""
        options = ["--create-namespace", "--take-ownership", "--set", f"images.registry={REGISTRY}"]
        _helm("install", NAME, str(self.chart), *options, *leniency(), "--wait")
        self.installed = True

    def upgrade(self, values: str) -> None:
        options = ["--reset-then-reuse-values", "--set", values]
        _helm("upgrade", NAME, str(self.chart), *options, *leniency(), "--wait")

    def test(self, command: str) -> str:
        """`command`: `helm test ...`, as a page has it."""
        return _run([str(helm()), *shlex.split(command)[1:], "--timeout", "5m"])

    def uninstall(self) -> None:
        _helm("uninstall", NAME, "--wait")
        self.installed = False


@contextmanager
def release(folder: Path) -> Iterator[Release]:
    """Builds the images, gives them to the nodes, and installs the chart with their names."""
    archives = folder / "images"
    images = ["--prefix", f"{REGISTRY}/", "--archives", str(archives)]
    _run([*means.build_command(), "--python", sys.executable, *images])
    for archive in sorted(archives.glob("*.tar")):
        _run([*means.load_command(), str(archive)])
        archive.unlink()
    made = Release(fitting_chart(folder))
    made.install()
    try:
        yield made
    finally:
        if made.installed:
            made.uninstall()


def kubectl_run(*arguments: str) -> str:
    return _run([str(kubectl()), *arguments])


def leniency() -> list[str]:
    """An API server that is older than CEL describes CRDs without rules, and helm would believe it."""
    return ["--disable-openapi-validation"] if _minor() < 25 else []


def fitting_chart(folder: Path) -> Path:
    """The chart; for a core that is older than it takes, a copy that takes it."""
    minor = _minor()
    return CHART if minor >= int(OLDEST.partition(".")[2]) else taking(f"1.{minor}", folder)


def _minor() -> int:
    """Of the API server: 27 of 1.27."""
    return int(json.loads(kubectl_run("get", "--raw", "/version"))["minor"].rstrip("+"))


def _helm(verb: str, *arguments: str) -> str:
    return _run([str(helm()), verb, *arguments, "--namespace", NAMESPACE, "--timeout", "5m"])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=means.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
