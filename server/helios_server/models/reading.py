"""Whatever goes wrong while a model is read is the model's fault, and named as such.

Around each place at which files become a model: a checkpoint that opens, a bundle, a backbone that loads,
all of it at the start of an engine. What is raised while a model serves must not pass here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from helios_server.errors import CheckpointError, HeliosError, OutOfMemoryBudget

_FIX = "Check that the model's files are complete and can be read; if they are, report this"
_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch says it in a RuntimeError


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raises HeliosErrors only. what: the model's uri or path, the field of an error that names none."""
    try:
        yield
    except (HeliosError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        words = (str(error).splitlines() or [""])[0]
        if isinstance(error, MemoryError) or any(sign in words for sign in _NO_MEMORY):
            problem = f"{what} does not fit into memory ({words})"
            raise OutOfMemoryBudget(
                "limits.memory_mib", problem, "Raise it, or use a smaller model"
            ) from error
        raise CheckpointError(what, f"cannot be loaded ({type(error).__name__}: {words})", _FIX) from error
