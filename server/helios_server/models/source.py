"""Where a model's tensors come from, and whether its files are still those that were loaded.

Kept by `backbone.py`, which reads layers while the model serves. Files on a volume may be replaced meanwhile:
what is read must be of the model that serves, or nothing. It must not keep tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from helios_server.errors import CheckpointError
from helios_server.models.checkpoint import Checkpoint
from helios_server.native.quantised import Quantised

T = TypeVar("T")
_DESCRIPTIONS = ("config.json", "model.safetensors.index.json")
_TRIES = 3
"""Readings of one layer while its files go on changing and stay the same model."""

Identity = tuple[tuple[str, tuple[int, ...]], ...]
"""Of files: name; device, inode, size in bytes, times of the last changes in ns. It costs no reading."""


class Source:
    """A checkpoint whose files are watched from the moment on at which this is made."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._fingerprint = ""
        self._held = _identity(checkpoint.path), checkpoint  # together: two threads may read at once

    @property
    def checkpoint(self) -> Checkpoint:
        """As its files lie now."""
        return self._held[1]

    def settle(self) -> None:
        """All that serves has been read: from now on this fingerprint tells whether changed files matter.

        Raises CheckpointError when they changed while they were read.
        """
        seen, checkpoint = self._held
        fingerprint, again = checkpoint.fingerprint, Checkpoint.open(checkpoint.path)
        as_opened = again.raw_config == checkpoint.raw_config and again.names == checkpoint.names
        if not as_opened or _identity(checkpoint.path) != seen:
            raise _changing(checkpoint.path)
        self._fingerprint = fingerprint

    def layer_tensors(self, layer: int) -> dict[str, Tensor | Quantised]:
        """The tensors of one layer, by their name within it, of the model that was loaded.

        Raises CheckpointError where they cannot be read, or its files are another model's before or after.
        """
        return self._of_the_model(lambda checkpoint: checkpoint.layer_tensors(layer))

    def embedding(self, rows: slice) -> Tensor | Quantised:
        """Rows of the embedding, as stored, of the model that was loaded. Raises as `layer_tensors` does."""
        return self._of_the_model(lambda checkpoint: _table(checkpoint, checkpoint.embedding_name, rows))

    def head(self, rows: slice) -> Tensor | Quantised:
        """Rows of the LM head, likewise."""
        return self._of_the_model(lambda checkpoint: _table(checkpoint, checkpoint.head_name, rows))

    def _of_the_model(self, read: Callable[[Checkpoint], T]) -> T:
        for _ in range(_TRIES):
            seen, checkpoint = self._same_model()
            try:
                found = read(checkpoint)
            except Exception:
                if _identity(checkpoint.path) == seen:
                    raise
                continue
            if _identity(checkpoint.path) == seen:
                return found
        raise _changing(self.checkpoint.path)

    def _same_model(self) -> tuple[Identity, Checkpoint]:
        """Other files with the same fingerprint are the same model, but their tensors may lie elsewhere."""
        held = self._held
        path = held[1].path
        now = _identity(path)
        if now == held[0]:
            return held
        if not self._fingerprint:
            raise _changing(path)
        fresh = _reopened(held[1])
        if fresh.fingerprint != self._fingerprint:
            raise _replaced(path, f"fingerprint {fresh.fingerprint[:12]}, not {self._fingerprint[:12]}")
        self._held = now, fresh
        return self._held


def _table(checkpoint: Checkpoint, name: str, rows: slice) -> Tensor | Quantised:
    return checkpoint.matrix(name, checkpoint.config.hidden_size, rows)


def _reopened(before: Checkpoint) -> Checkpoint:
    try:
        fresh = Checkpoint.open(before.path, before.named)
        _ = fresh.fingerprint
    except Exception as error:  # files that are half copied break in any way
        raise _replaced(before.path, str(error)) from error
    return fresh


def _identity(path: Path) -> Identity:
    files = [*(path / name for name in _DESCRIPTIONS), *sorted(path.glob("*.safetensors"))]
    return tuple((file.name, _stat(file)) for file in files)


def _stat(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _changing(path: Path) -> CheckpointError:
    return CheckpointError(
        str(path), "its files changed while they were read", "Try again when they are complete"
    )


def _replaced(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        str(path),
        f"holds another model than the one that serves ({found})",
        "Put its files back, or name the new model by another uri or revision",
    )
