"""Objects from YAML text, as kubectl reads it: several documents, no surprises from YAML's own types.

Called by whoever is given a file. It checks the YAML, not the objects: `api.validation` does that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from helios_contract.problems import Problem
from helios_contract.strict_yaml import StrictLoader

from helios_operator.api.problems import Invalid


def read(path: Path) -> list[Any]:
    """The documents of a file. Invalid: it cannot be read, or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise Invalid(
            [Problem(str(path), f"cannot be read ({reason})", "give the path of a YAML file")]
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid([Problem(str(path), "is not UTF-8 text", "give a YAML file in UTF-8")]) from error
    return load(text, str(path))


def load(text: str, source: str) -> list[Any]:
    """The documents of a text, empty ones left out. `source`: what to call it in problems."""
    try:
        documents = [document for document in yaml.load_all(text, StrictLoader) if document is not None]
    except yaml.MarkedYAMLError as error:
        raise Invalid([_yaml_problem(error, source)]) from error
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise Invalid([Problem(source, f"is not YAML ({what})", "correct it")]) from error
    if not documents:
        raise Invalid([Problem(source, "has no object in it", "write at least one HeliosDeployment")])
    return documents


def _yaml_problem(error: yaml.MarkedYAMLError, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    what = " ".join(part for part in (error.context, error.problem) if part)
    fix = "indent with spaces" if "'\\t'" in what else "correct the YAML there or on the line above"
    return Problem(place, what or "is not YAML", fix)
