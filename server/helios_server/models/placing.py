"""A model put into a folder that the caller names, whole or not at all: on a claim, for the pods that mount
it.

Called by the command (`helios model NAME --out DIR`), which a Job of docs/first-model.md runs. What it puts
there is opened once before it counts. A folder that holds anything else is left as it is: pods may serve from
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from helios_server.errors import CheckpointError, HeliosError
from helios_server.models import smollm2
from helios_server.models.cache import ensure_directory, is_intact, recipe_of
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.locate import FILES, download, is_offline, locate, remedy
from helios_server.models.reading import reading
from helios_server.models.store import resolve
from helios_server.models.tokenizer import Tokenizer

Progress = Callable[[str], None]


def place(
    uri: str,
    target: Path,
    revision: str | None = None,
    *,
    volumes: Path | None = None,
    progress: Progress = lambda _: None,
) -> Path:
    """Returns `target`, which holds the model; what is there already is not fetched or written again.

    uri: smollm2-135m, or as `resolve` takes it; revision: of the hub's models. Raises HeliosError.
    """
    recipe = _recipe(uri, revision, volumes)
    with _writing(target):
        refuse_what_is_not_ours(target, recipe)
        if is_intact(target, recipe):
            progress(f"{uri}: is in {target}")
            return target
        progress(f"{uri}: into {target}")
        return ensure_directory(target, lambda part: _fill(part, uri, revision, volumes, progress), recipe)


def refuse_what_is_not_ours(target: Path, recipe: str = "") -> None:
    """Raises CheckpointError for a folder with anything that was not put there by the same recipe, or by any
    where none is given."""
    if target.is_file():
        raise CheckpointError(str(target), "is a file", "Name a folder")
    if not target.is_dir() or not any(target.iterdir()):
        return
    held = recipe_of(target)
    if held is None:
        problem = "holds files that were not put there by `helios model`"
        raise CheckpointError(str(target), problem, "Name another folder, or empty this one")
    if recipe and held != recipe:
        fix = "Name another folder, or remove this one once nothing serves from it"
        raise CheckpointError(str(target), f"holds {held}, expected {recipe}", fix)


def _recipe(uri: str, revision: str | None, volumes: Path | None) -> str:
    """What the folder is to hold. A branch that moved on is no other model until its commit is named."""
    if uri == smollm2.NAME:
        return smollm2.RECIPE
    if uri.startswith("hf://"):
        return f"{uri} at {revision or 'main'}"
    model = resolve(uri, volumes=volumes)
    return f"{uri} at {model.revision}"


def _fill(part: Path, uri: str, revision: str | None, volumes: Path | None, progress: Progress) -> None:
    if uri == smollm2.NAME:
        kept = smollm2.cached()
        _copy(kept, part) if kept else smollm2.build(part, progress)
    elif uri.startswith("hf://") and not is_offline():
        download(uri, revision, part)
    else:
        _copy(locate(uri, revision, volumes=volumes)[0], part)
    _check(part, uri)


def _copy(source: Path, target: Path) -> None:
    for pattern in (*FILES, "LICENSE*"):
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _check(part: Path, uri: str) -> None:
    """That it can be served, every shard of it; nobody should learn of a folder's passing name."""
    try:
        with reading(uri):
            _ = Checkpoint.open(part).fingerprint
            Tokenizer.open(part)
    except HeliosError as error:
        field, problem = (text.replace(str(part), uri) for text in (error.field, error.problem))
        raise CheckpointError(field, problem, error.fix) from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """What the file system refuses is the folder's fault."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # the second is a full disk's, too
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        fix = remedy(error, "Name a folder on another volume")
        raise CheckpointError(str(target), f"cannot be written ({reason})", fix) from error
