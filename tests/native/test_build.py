"""Building: what names a library, machines without a compiler, wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helios_server.native import build as building
from helios_server.native.build import BuildError, build, library_file

from tests.native.libraries import kernels_file

ROOT = Path(__file__).resolve().parents[2]


def test_the_name_tells_the_sources_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.cpp").write_text("int a;")
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    first = library_file()
    assert library_file(("-g",)) != first
    (tmp_path / "a.cpp").write_text("int b;")
    second = library_file()
    assert second != first
    (tmp_path / "a.cpp").rename(tmp_path / "b.cpp")
    assert library_file() not in (first, second)


@pytest.mark.parametrize(("path", "compiler"), [("/nowhere", None), (None, "no-such-compiler")])
def test_without_a_compiler_one_line_says_so_and_it_is_no_failure(
    path: str | None, compiler: str | None, tmp_path: Path
) -> None:
    """In a copy of the package, which has no library yet."""
    subprocess.run(["cp", "-r", ROOT / "server/helios_server", tmp_path], check=True)
    for built in (tmp_path / "helios_server/native").glob("_kernels-*.so"):
        built.unlink()
    env = {**os.environ, "PYTHONPATH": str(tmp_path)} | ({"PATH": path} if path else {})
    env = {name: value for name, value in env.items() if name != "CXX"} | (
        {"CXX": compiler} if compiler else {}
    )
    run = subprocess.run(
        [sys.executable, "-m", "helios_server.native.build"],
        env=env, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    (line,) = run.stderr.splitlines()
    missing = (
        f"CXX: there is no '{compiler}'" if compiler else "there is no C++ compiler (c++, g++ or clang++)"
    )
    assert line == f"no native kernels: {missing}; everything runs on torch"
    assert not list((tmp_path / "helios_server/native").glob("_kernels-*.so"))


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    kernels_file()  # there is a compiler
    with pytest.raises(BuildError, match="the compiler failed: "):
        build(("-DHELIOS_EMULATE_AMX", "-fno-such-flag"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wheel_carries_the_kernels_of_its_platform(tmp_path: Path) -> None:
    kernels_file()  # there is a compiler
    file = library_file()
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if name.startswith("helios_server/native/")}
    assert f"helios_server/native/{file.name}" in inside
    assert {f"helios_server/native/kernels/{source.name}" for source in building.SOURCES.iterdir()} <= inside
