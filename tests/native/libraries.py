"""The kernels under every instruction set that can be tested here, AMX with its tiles emulated among them.

HELIOS_SANITIZED=1 takes builds that watch memory and arithmetic (`make sanitize`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from helios_server.models.cache import cache_root
from helios_server.native.build import BuildError, build
from helios_server.native.interface import ISAS, load
from helios_server.native.library import Library
from hypothesis import settings

from tests.sizes import examples

EMULATED = "amx-emulated"
SANITIZED = os.environ.get("HELIOS_SANITIZED") == "1"
_SANITIZERS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g1",
    "-O1",
)


@functools.cache
def kernels_file(emulated: bool = False) -> Path:
    """The library to test, built when it is missing. Skips the test where none can be built."""
    extra = (*(_SANITIZERS if SANITIZED else ()), *(("-DHELIOS_EMULATE_AMX",) if emulated else ()))
    directory = None
    if extra:
        directory = cache_root() / "native-tests"
        directory.mkdir(parents=True, exist_ok=True)
    try:
        return build(extra, directory)
    except BuildError as error:
        pytest.skip(f"no kernels to test: {error}")


@functools.cache
def _supported() -> tuple[str, ...]:
    try:
        functions = load(build())
    except BuildError:
        return ()
    return tuple(isa for index, isa in enumerate(ISAS) if functions.helios_supports(index))


def names() -> list[str]:
    """Of the instruction sets that are tested."""
    return [*_supported(), *([EMULATED] if "avx512" in _supported() else [])] or ["none"]


@functools.cache
def kernels(name: str, threads: int = 1) -> Library:
    if name == "none":
        pytest.skip("no instruction set here that there are kernels for, or no compiler")
    emulated = name == EMULATED
    return Library.for_isa("amx" if emulated else name, kernels_file(emulated), threads)


every_isa = pytest.mark.parametrize("isa", names())
of_each_kernel = settings(max_examples=examples(100, heavy=True))
