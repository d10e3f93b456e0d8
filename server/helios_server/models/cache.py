"""Directories that are built once and are either whole or absent.

Used for what is fetched or derived: the converted model, models with layers dropped, text for training. A
build goes to a sibling, is flushed, listed with sizes and sha256 in a manifest, and renamed; a process that
dies in the middle leaves only a sibling that the next build removes. It must not know what the directories
hold.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MANIFEST = "manifest.json"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


def cache_root() -> Path:
    """HELIOS_CACHE, else XDG_CACHE_HOME/helios, else ~/.cache/helios."""
    if chosen := os.environ.get("HELIOS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "helios"


def ensure_directory(target: Path, build: Callable[[Path], None], recipe: str) -> Path:
    """Returns `target`, built by `build` unless it is there, undamaged and made by the same `recipe`."""
    if is_intact(target, recipe):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target):
        if not is_intact(target, recipe):
            _rebuild(target, build, recipe)
    return target


def is_intact(target: Path, recipe: str) -> bool:
    """Whether every file of the manifest is there as it was written, and the recipe is the one asked for.

    A file whose size and time of change are the recorded ones is not read again; one that was copied is
    hashed.
    """
    try:
        manifest = _manifest(target)
        files = manifest["files"].items()
        return manifest["recipe"] == recipe and all(_matches(target / name, record) for name, record in files)
    except _UNREADABLE:
        return False


def recipe_of(target: Path) -> str | None:
    """What a directory says it was made by, damaged or not; None: it says nothing."""
    try:
        return str(_manifest(target)["recipe"])
    except _UNREADABLE:
        return None


def _manifest(target: Path) -> Any:
    return json.loads((target / _MANIFEST).read_text(encoding="utf-8"))


def _matches(file: Path, record: dict[str, int | str]) -> bool:
    stat = file.stat()
    if stat.st_size != record["bytes"]:
        return False
    return stat.st_mtime_ns == record["mtimeNs"] or _sha256(file) == record["sha256"]


def _rebuild(target: Path, build: Callable[[Path], None], recipe: str) -> None:
    for leftover in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(leftover)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        build(part)
        _write_manifest(part, recipe)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_manifest(directory: Path, recipe: str) -> None:
    files, manifest = {}, directory / _MANIFEST
    manifest.unlink(missing_ok=True)  # of what was copied here
    for file in sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()):
        file.chmod(file.stat().st_mode | 0o444)  # safetensors writes files that only their owner can read
        _flush(file)
        stat = file.stat()
        record = {"bytes": stat.st_size, "mtimeNs": stat.st_mtime_ns, "sha256": _sha256(file)}
        files[str(file.relative_to(directory))] = record
    manifest.write_text(json.dumps({"recipe": recipe, "files": files}, indent=1), encoding="utf-8")
    _flush(manifest)
    _flush(directory)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One builder at a time; the operating system drops the lock of a process that dies."""
    with target.with_name(f".{target.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
