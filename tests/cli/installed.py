"""An installation of one extra, as `pip install` of the wheel makes it, put together from what is installed
here: the distributions that the extra asks for and theirs, nothing else, and nothing is fetched or copied.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / place
    for place in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
]
PYTHON = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def installation(folder: Path, extra: str) -> Path:
    """Its python. `folder` becomes a virtual environment."""
    python = libraries(folder, extra)
    for package in PACKAGES:
        (folder / PYTHON / package.name).symlink_to(package)
    _describe(folder / PYTHON)
    return python


def libraries(folder: Path, *extras: str) -> Path:
    """The same without HELIOS: what the extras ask for."""
    site = folder / PYTHON
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "pyvenv.cfg").write_text(
        f"home = {Path(sys.base_exec_prefix) / 'bin'}\ninclude-system-site-packages = false\n"
    )
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    for name in sorted(set().union(*map(_closure, extras))):
        _link(metadata.distribution(name), site)
    return python


def _describe(site: Path) -> None:
    """The metadata that the wheel would have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", "Version: 0"]
    lines += [f"Requires-Dist: {each}" for each in project["dependencies"]]
    for extra, wanted in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {each}; extra == '{extra}'" for each in wanted]
    place = site / "helios_serve-0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("\n".join(lines) + "\n")


def _closure(extra: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found: set[str] = set()
    waiting = [Requirement(each) for each in (*project["dependencies"], *extras[extra])]
    while waiting:
        wanted = waiting.pop()
        if wanted.name == project["name"]:
            waiting += [Requirement(each) for one in wanted.extras for each in extras[one]]
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if wanted.marker and not any(wanted.marker.evaluate({"extra": one}) for one in ("", *wanted.extras)):
            continue
        if name not in found:
            found.add(name)
            waiting += _asked_by(metadata.requires(name) or (), wanted.extras)
    return found


def _asked_by(requirements: Iterable[str], extras: set[str]) -> Iterator[Requirement]:
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": e}) for e in ("", *extras)
        ):
            requirement.marker = None
            yield requirement


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """Whole packages; of a package that several distributions share, this one's part."""
    root = Path(str(distribution.locate_file("")))
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        part = Path()
        for name in file.parts:
            part /= name
            is_shared = (root / part).is_dir() and not (
                (root / part / "__init__.py").exists() or part.suffix == ".dist-info"
            )
            if is_shared:
                (site / part).mkdir(exist_ok=True)
                continue
            if not (site / part).is_symlink():
                (site / part).symlink_to(root / part)
            break
