"""A second copy of `helios_operator.decide` with one expression replaced, beside the real one.

The types that cross its border (Snapshot, Plan) stay shared, so that the simulated world can use either.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

import helios_operator
import helios_operator.decide
from helios_operator.decide.plan import Plan
from helios_operator.decide.snapshot import Snapshot

PACKAGE = "helios_operator.decide"
SHARED = (f"{PACKAGE}.snapshot", f"{PACKAGE}.plan")
FOLDER = Path(helios_operator.decide.__file__).parent


Edit = tuple[str, str, str]
"""(module, old text, new text). The module by its file's name alone: the rooms share no name."""


class Replacing(SourceFileLoader):
    """Loads a module with texts replaced; each must match in exactly one place."""

    def __init__(self, name: str, path: str, edits: tuple[Edit, ...]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def]
        source = Path(self.path).read_text(encoding="utf-8")
        for _, old, new in self._edits:
            if source.count(old) != 1:
                raise LookupError(
                    f"{fullname}: {source.count(old)} places match {old!r}; bring the table up to date"
                )
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class Finder:
    """Answers for the edited modules."""

    def __init__(self, edits: tuple[Edit, ...]) -> None:
        self._edits = edits

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mine = tuple(edit for edit in self._edits if _full_name(edit[0]) == name)
        if not mine:
            return None
        file = str(_file(mine[0][0]))
        return importlib.util.spec_from_file_location(name, file, loader=Replacing(name, file, mine))


def _file(module: str) -> Path:
    (found,) = FOLDER.rglob(f"{module}.py")
    return found


def _full_name(module: str) -> str:
    return ".".join((PACKAGE, *_file(module).relative_to(FOLDER).with_suffix("").parts))


def mutated(*edits: Edit) -> Callable[[Snapshot, datetime], Plan]:
    """The `decide` of a copy in which some texts read otherwise."""
    real = {n: loaded for n, loaded in sys.modules.items() if n == PACKAGE or n.startswith(f"{PACKAGE}.")}
    finder = Finder(edits)
    for name in real.keys() - set(SHARED):
        del sys.modules[name]
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        decide: Callable[[Snapshot, datetime], Plan] = importlib.import_module(PACKAGE).decide
        return decide
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        sys.modules.update(real)
        helios_operator.decide = real[PACKAGE]  # type: ignore[attr-defined]
