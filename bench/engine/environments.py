"""Where peers are installed, and what is made of the model for each: in the user's cache, once.

Their requirements disagree with each other's and with ours, so each has a virtual environment of its own
(docs/decisions/0147-peers-in-their-own-environments.md). Called before anything is timed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from helios_server.models.cache import cache_root

ROOT = Path(__file__).resolve().parents[2]
_CONSTRAINTS = ROOT / "constraints.txt"
_STAMP = ".installed"


class InstallError(Exception):
    """An environment that cannot be had, in a sentence."""


def folder(name: str) -> Path:
    return cache_root() / "peers" / name


def python_of(name: str, requirements: tuple[str, ...], unwanted: tuple[str, ...] = ()) -> Path:
    """The interpreter of an environment that holds just that, installed if it does not.

    torch is of the release that we are tested with, in the build that pip is set up for. Raises InstallError.
    """
    venv = folder(name) / "venv"
    interpreter, stamp = venv / "bin" / "python", venv / _STAMP
    recipe = _recipe(requirements, unwanted)
    if stamp.is_file() and stamp.read_text() == recipe:
        return interpreter
    stamp.unlink(missing_ok=True)
    print(f"installing {name}: {', '.join(requirements)}", file=sys.stderr)
    _run(name, sys.executable, "-m", "venv", "--clear", str(venv))
    constraints = venv / "constraints.txt"
    constraints.write_text(_torch() + "\n")
    _run(
        name, interpreter, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *requirements
    )
    if unwanted:
        _run(name, interpreter, "-m", "pip", "uninstall", "--quiet", "--yes", *unwanted)
    stamp.write_text(recipe)
    return interpreter


def _torch() -> str:
    return next(line for line in _CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))


def _recipe(requirements: tuple[str, ...], unwanted: tuple[str, ...]) -> str:
    told = [sys.version, _torch(), *requirements, "without", *unwanted]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _run(name: str, *command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InstallError(f"{name} cannot be installed: {lines[-1] if lines else 'pip said nothing'}")
