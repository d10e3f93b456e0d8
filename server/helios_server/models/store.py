"""Where models come from: a URI in, a directory on this machine out.

Called by everything that takes a model or a bundle by URI. Where the uri leads, `locate.py` says; it must not
open tensors beyond what the revision of a folder needs.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from helios_server.errors import CheckpointError
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.folder import refuse_other_forms
from helios_server.models.locate import locate
from helios_server.models.prune import drop_layers
from helios_server.models.smollm2 import ensure_smollm2

__all__ = ["ResolvedModel", "drop_layers", "ensure_smollm2", "locate", "resolve"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine. revision: the hub's commit, else the one given, else 12 hex digits of the
    fingerprint."""

    path: Path
    uri: str
    revision: str

    @property
    def named(self) -> str:
        """As `helios tune` and other commands are told it."""
        of_hub = self.uri.startswith("hf://")
        return shlex.quote(self.uri) + (f" --revision {self.revision}" if of_hub else "")


def resolve(
    uri: str, revision: str | None = None, *, volumes: Path | None = None, offline: bool | None = None
) -> ResolvedModel:
    """Finds a model. volumes: the folder that stands for mounted claims; offline None: as HF_HUB_OFFLINE
    says."""
    path, found = locate(uri, revision, volumes=volumes, offline=offline)
    if not (path / "config.json").is_file():
        refuse_other_forms(path)
        raise CheckpointError(uri, f"{path} holds no config.json", "Give a Hugging Face checkpoint directory")
    return ResolvedModel(path, uri, found or Checkpoint.open(path).fingerprint[:12])
