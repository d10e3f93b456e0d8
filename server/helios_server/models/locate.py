"""Where a uri leads: a folder on this machine, fetched from the hub first where it names one; or its
config.json alone.

Called by `store.py` and, for config.json, by whoever plans before a model is downloaded. It fetches through
huggingface_hub and reads no file; nothing here may import torch.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_server.errors import ModelNotFoundError

CONFIG = "config.json"
SCHEMES = "file:///path, pvc://claim/path or hf://org/name"
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Of a model's folder, by their names."""


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
        return _snapshot(uri, rest, revision, offline)
    raise ModelNotFoundError(uri, "is not a URI that HELIOS knows", f"Write {SCHEMES}")


def locate_config(uri: str, revision: str | None = None, *, volumes: Path | None = None) -> Path:
    """A model's config.json, which need not be there; of a model of the hub no other file is fetched."""
    scheme, _, rest = uri.partition("://")
    if scheme != "hf":
        return locate(uri, revision, volumes=volumes)[0] / CONFIG
    from huggingface_hub import hf_hub_download  # slow to import, and needed for hub models only

    offline = is_offline()
    with _fetching(uri, rest, offline):
        return Path(hf_hub_download(rest, CONFIG, revision=revision, local_files_only=offline))


def download(uri: str, revision: str | None, target: Path) -> None:
    """Fetches a model of the hub into a folder, which is empty."""
    from huggingface_hub import snapshot_download

    repository = uri.partition("://")[2]
    with _fetching(uri, repository, offline=False):
        snapshot_download(repository, revision=revision, allow_patterns=list(FILES), local_dir=target)
    shutil.rmtree(target / ".cache", ignore_errors=True)  # what it keeps to fetch less another time


def remedy(error: Exception, otherwise: str) -> str:
    """What to do about files that could not be had or written. otherwise: where the disk is not why."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Make room, or give a larger volume"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Name a folder that this user may write to; on a claim the pod's fsGroup gives the right"
    return otherwise


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


def _snapshot(uri: str, repository: str, revision: str | None, offline: bool | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    offline = is_offline() if offline is None else offline
    with _fetching(uri, repository, offline):
        snapshot = snapshot_download(
            repository, revision=revision, allow_patterns=list(FILES), local_files_only=offline
        )
    return Path(snapshot), Path(snapshot).name


@contextmanager
def _fetching(uri: str, repository: str, offline: bool) -> Iterator[None]:
    """Around a call of the hub: whatever keeps a file from being had is the uri's error."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ModelNotFoundError(uri, "does not name a repository", "Write hf://org/name")
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except LocalEntryNotFoundError as error:
        fix = (
            "Fetch it once while online, or unset HF_HUB_OFFLINE"
            if offline
            else "Check the network and the name; HF_ENDPOINT names a mirror"
        )
        raise ModelNotFoundError(uri, "is not in the local cache and cannot be fetched", fix) from error
    except Exception as error:  # of the hub, of whichever HTTP library it uses, of the disk
        fix = remedy(error, "Check name, revision and access token")
        raise ModelNotFoundError(uri, f"cannot be fetched ({_reason(error)})", fix) from error


def _reason(error: Exception) -> str:
    """The hub's own first lines are a status and a request's number."""
    from huggingface_hub import errors

    known = {
        errors.GatedRepoError: "access to it must be asked for, on its page",
        errors.RepositoryNotFoundError: "no such repository, or none that this token may read",
        errors.RevisionNotFoundError: "no such revision",
    }
    told = (words for kind, words in known.items() if isinstance(error, kind))
    return next(told, (str(error).splitlines() or [type(error).__name__])[0])


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
