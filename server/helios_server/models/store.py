"""Where models come from: a URI in, a directory on this machine out.

Called by everything that takes a model or a bundle by URI. It fetches through huggingface_hub and reads
folders; it must not open tensors beyond what the revision of a folder needs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from helios_server.errors import CheckpointError, ModelNotFoundError
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.folder import refuse_other_forms
from helios_server.models.prune import drop_layers
from helios_server.models.smollm2 import ensure_smollm2

__all__ = ["ResolvedModel", "drop_layers", "ensure_smollm2", "locate", "resolve"]

_SCHEMES = "file:///path, pvc://claim/path or hf://org/name"
_HF_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine. revision: the hub's commit, else the one given, else 12 hex digits of the
    fingerprint."""

    path: Path
    uri: str
    revision: str


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


def locate(
    uri: str, revision: str | None = None, *, volumes: Path | None = None, offline: bool | None = None
) -> tuple[Path, str | None]:
    """The directory behind a URI, and its revision where the source or the caller knows one."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "file":
        return _existing(uri, _absolute(uri, rest)), revision
    if separator and scheme == "pvc":
        return _existing(uri, _in_volumes(uri, rest, volumes)), revision
    if separator and scheme == "hf":
        return _from_hub(uri, rest, revision, offline)
    raise ModelNotFoundError(uri, "is not a URI that HELIOS knows", f"Write {_SCHEMES}")


def _absolute(uri: str, rest: str) -> Path:
    if not rest.startswith("/"):
        raise ModelNotFoundError(uri, "is not absolute", "Write file:///path, with three slashes")
    return Path(rest)


def _in_volumes(uri: str, rest: str, volumes: Path | None) -> Path:
    if volumes is None:
        raise ModelNotFoundError(uri, "names a volume, but no volumes folder is set", "Pass --volumes DIR")
    if not rest or ".." in Path(rest).parts:
        raise ModelNotFoundError(uri, "does not name a path inside a claim", "Write pvc://claim/path")
    return volumes / rest


def _existing(uri: str, path: Path) -> Path:
    if path.is_file():
        raise ModelNotFoundError(uri, f"{path} is a file", "Give the folder of a Hugging Face checkpoint")
    if not path.is_dir():
        raise ModelNotFoundError(uri, f"no directory {path}", "Check the uri, or put the model there")
    return path


def _from_hub(uri: str, repository: str, revision: str | None, offline: bool | None) -> tuple[Path, str]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ModelNotFoundError(uri, "does not name a repository", "Write hf://org/name")
    from huggingface_hub import snapshot_download  # slow to import, and needed for hub models only
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if offline is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        snapshot = snapshot_download(
            repository, revision=revision, allow_patterns=_HF_PATTERNS, local_files_only=offline
        )
    except LocalEntryNotFoundError as error:
        fix = (
            "Fetch it once while online, or unset HF_HUB_OFFLINE"
            if offline
            else "Check the network and the name"
        )
        raise ModelNotFoundError(uri, "is not in the local cache and cannot be fetched", fix) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelNotFoundError(
            uri, f"cannot be fetched ({reason})", "Check name, revision and access token"
        ) from error
    return Path(snapshot), Path(snapshot).name
