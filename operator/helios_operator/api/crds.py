"""The three CRDs, read from the wheel, or from the checkout's `crds/` folder: the source of truth of every
schema.

Called by `api.validation`, by the tests and by the reference generator. It must not change what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

GROUP = "helios.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Json = dict[str, Any]


@dataclass(frozen=True)
class Crd:
    """`schema`: the openAPIV3Schema of the served version. `document`: the whole CustomResourceDefinition."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    schema: Json
    document: Json


@cache
def crds() -> dict[str, Crd]:
    """By kind."""
    found = (_read(path) for path in sorted(folder().glob("*.yaml")))
    return {crd.kind: crd for crd in found}


def folder() -> Path:
    """Where the CRDs are: beside this package in a wheel, in `crds/` of the repository in a checkout."""
    here = Path(__file__).resolve()
    installed = here.parents[1] / "crds"
    return installed if installed.is_dir() else here.parents[3] / "crds"


def _read(path: Path) -> Crd:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = document["spec"]["names"]
    return Crd(
        kind=names["kind"],
        plural=names["plural"],
        short_names=tuple(names["shortNames"]),
        schema=document["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        document=document,
    )
