"""Compiles the kernels with the system's C++ compiler: `python -m helios_server.native.build`.

Called by the Makefile, by the hook that makes wheels, and by tests. Never at import: `library.py` only loads
what is there. It must import nothing but the standard library, since a wheel is made without the others.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).with_name("kernels")
FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fopenmp",
    # A product and a sum are fused where the kernels say so and nowhere else: the compiler would do it in the
    # code for one row and not in that for many, and their bits would differ.
    "-ffp-contract=off", "-fno-math-errno",
)  # fmt: skip
_MACHINES = ("x86_64", "AMD64")


class BuildError(Exception):
    """There is no library, in one line: why."""


def library_file(extra: Sequence[str] = (), directory: Path | None = None) -> Path:
    """Where the library of these very sources and flags is, or would be."""
    digest = hashlib.sha256(" ".join((*FLAGS, *extra)).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return (directory or SOURCES.parent) / f"_kernels-{digest.hexdigest()[:16]}.so"


def build(extra: Sequence[str] = (), directory: Path | None = None) -> Path:
    """Compiles, unless that is done already. extra: flags behind the usual ones; directory: of the file.

    Raises BuildError.
    """
    file = library_file(extra, directory)
    if not file.exists():
        compiler = _compiler()
        with tempfile.TemporaryDirectory(prefix=".build-", dir=file.parent) as scratch:
            made = _compile(compiler, [*FLAGS, *extra], Path(scratch))
            made.replace(file)  # at once: whoever loads it meanwhile sees all or nothing
    return file


def why_not_here() -> str | None:
    """Why no kernels can be had on this kind of machine; None: they can."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return (
            f"there are kernels for Linux on x86-64 only, and this is {sys.platform} on {platform.machine()}"
        )
    return None


def _compiler() -> str:
    if reason := why_not_here():
        raise BuildError(reason)
    chosen = os.environ.get("CXX")
    for name in (chosen,) if chosen else ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    raise BuildError(
        f"CXX: there is no '{chosen}'" if chosen else "there is no C++ compiler (c++, g++ or clang++)"
    )


def _compile(compiler: str, flags: Sequence[str], scratch: Path) -> Path:
    sources = sorted(SOURCES.glob("*.cpp"))
    objects = [scratch / f"{source.stem}.o" for source in sources]
    running = [
        _start([compiler, *flags, "-c", str(source), "-o", str(made)])
        for source, made in zip(sources, objects, strict=True)
    ]
    for process in running:
        _finish(process)
    library = scratch / "library.so"
    _finish(_start([compiler, *flags, "-shared", *map(str, objects), "-o", str(library)]))
    return library


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        lines = (
            [line for line in errors.splitlines() if "error" in line] or errors.splitlines() or ["no message"]
        )
        raise BuildError(f"the compiler failed: {lines[0].strip()}")


def main() -> int:
    """Builds beside this file and drops what older sources left. To lack a compiler is no failure."""
    try:
        file = build()
    except BuildError as error:
        print(f"no native kernels: {error}; everything runs on torch", file=sys.stderr)
        return 0
    for other in file.parent.glob("_kernels-*.so"):
        if other != file:
            other.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
