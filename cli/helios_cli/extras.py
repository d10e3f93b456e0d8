"""Which extras of the package each verb needs, and which of them are not there.

Asked by `main` when an import failed, and by `helios up` before it starts processes that would. What an extra
holds is read from the package's own metadata; nothing is imported.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache

from helios_operator.errors import OperatorError

_PACKAGE = "helios-serve"
_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(\[(?P<extras>[^]]*)\])?[^;]*(;.*extra\s*==\s*['\"](?P<extra>[\w.-]+)['\"])?"
)
NEEDS = {
    "up": ("cli", "server"),
    "status": ("cli",),
    "why": ("cli",),
    "report": ("cli",),
    "profiles": ("cli",),
    "reassess": ("cli",),
    "switch": ("cli",),
    "rollback": ("cli",),
    "pause": ("cli",),
    "generate": ("cli",),
    "capacity": ("cli", "server"),
    "plan": ("cli", "server"),
    "simulate": ("cli", "server"),
    "model": ("server",),
    "operator": ("cli",),
    "serve": ("server",),
    "profile": ("server",),
    "tune": ("server",),
    "bench": ("cli", "server"),
    "rm": ("cli",),
    "version": ("cli",),
}
"""By verb: what brings all that it may come to import."""


def check(verb: str) -> None:
    """OperatorError that names the extras of which some library is not installed."""
    lacking = {extra: absent for extra in NEEDS[verb] if (absent := _absent(extra))}
    if lacking:
        libraries = sorted({name for absent in lacking.values() for name in absent})
        problem = f"needs {', '.join(libraries[:3])}{', …' if len(libraries) > 3 else ''}"
        problem += f", which {'is' if len(libraries) == 1 else 'are'} not installed"
        raise OperatorError(verb, problem, f"pip install '{_PACKAGE}[{','.join(lacking)}]'")


def is_of_ours(module: str) -> bool:
    """A part of HELIOS itself: that it is missing is no matter of extras."""
    return module.partition(".")[0].startswith("helios_")


def _absent(extra: str) -> list[str]:
    return [name for name in sorted(_libraries(extra)) if not _is_installed(name)]


@cache
def _libraries(extra: str) -> frozenset[str]:
    """Distributions that an extra asks for, through others of the package's."""
    found: set[str] = set()
    for text in importlib.metadata.requires(_PACKAGE) or ():
        requirement = _REQUIREMENT.match(text)
        if requirement is None or requirement["extra"] != extra:
            continue
        if requirement["name"].lower().replace("_", "-") == _PACKAGE:
            found.update(*(_libraries(other.strip()) for other in (requirement["extras"] or "").split(",")))
        else:
            found.add(requirement["name"])
    return frozenset(found)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
