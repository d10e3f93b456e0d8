"""Files that are whole or absent: every write of the local runtime to its state folder goes through here.

Called by the store, the revisions and the jobs. It must not know what the files mean.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from helios_operator.errors import StateError

_PARTIAL = ".partial-"


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replaces `path` by `text` in one step that survives a crash: written beside, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StateError(
            str(path), f"cannot be written ({error.strerror})", "make room, or check the folder's rights"
        ) from None
    _sync_folder(path.parent)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode=mode)


def read_json(path: Path) -> Any:
    """The file's content. StateError names a file that cannot be read or is damaged: it is never skipped."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StateError(
            str(path), f"cannot be read ({error.strerror})", "check the file and its rights"
        ) from None
    except ValueError as error:
        fix = "restore the file, or delete it to begin without it"
        raise StateError(str(path), f"is damaged ({error})", fix) from None


def remove_partials(folder: Path) -> None:
    """Drops what a killed writer left behind; the files it was about to replace are still whole."""
    for partial in list(folder.glob(f"**/{_PARTIAL}*")):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Deletes a folder so that a crash half-way leaves nothing that looks whole: it is renamed first."""
    if not folder.exists():
        return
    doomed = folder.with_name(f"{_PARTIAL}{secrets.token_hex(4)}-{folder.name}")
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
