"""Which instruction set serves, what is said when none does, and what is refused."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_server.errors import HeliosError
from helios_server.native import build as building
from helios_server.native.interface import ISAS
from helios_server.native.layers import Layer, Shape
from helios_server.native.library import Library, choose_library

from tests.native.libraries import EMULATED, every_isa, kernels, kernels_file, names
from tests.native.worlds import Row, World

_SHAPE = Shape(24, 4, 2, 8, 20, 1e-5, 4, torch.float32)
# By instruction set: a file, what stands there, what would be wrong, and what is computed wrongly then.
_FAULTS = {
    "avx512": (
        "matmul_int8_vnni.inl", "high, offsets[half]), 8)", "high, offsets[half]), 7)", "int8 products",
    ),
    "avx512_bf16": ("matmul_pairs.inl", "w + 512 + q * 16", "w + 512", "bfloat16 products"),
}  # fmt: skip


def _machine() -> list[str]:
    """Instruction sets that this machine has, from the least."""
    return [name for name in names() if name not in (EMULATED, "none")] or pytest.skip("it has none")  # type: ignore[no-any-return]


def _unpinned() -> list[str]:
    """Those of them that serve without being asked for: Intel's processors multiply pairs slowly."""
    is_intels = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    return [isa for isa in _machine() if not (is_intels and isa == "avx512_bf16")]


def test_the_best_of_the_machine_serves() -> None:
    best = choose_library("", kernels_file())
    assert best is not None
    assert best.isa == _unpinned()[-1]


@pytest.mark.parametrize("isa", ISAS)
def test_one_can_be_pinned_unless_the_machine_lacks_it(isa: str) -> None:
    if isa in _machine():
        pinned = choose_library(isa, kernels_file())
        assert pinned is not None
        assert pinned.isa == isa
    else:
        with pytest.raises(HeliosError, match=f"HELIOS_NATIVE: this machine lacks '{isa}'"):
            choose_library(isa, kernels_file())


@pytest.mark.parametrize("word", ["avx3", "AVX2", "on", " "])
def test_another_word_is_refused_by_name(word: str) -> None:
    with pytest.raises(HeliosError, match=f"HELIOS_NATIVE: '{word}' is not an instruction set"):
        choose_library(word, kernels_file())


def test_off_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert choose_library("off", kernels_file()) is None
    assert [record.message for record in caplog.records] == [
        "no native kernels, all layers run on torch: HELIOS_NATIVE is off"
    ]


def test_what_is_not_built_says_so_once_and_is_refused_when_pinned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert choose_library("", tmp_path / "none.so") is None
    assert len(caplog.records) == 1
    assert "the kernels are not built: run python -m helios_server.native.build" in caplog.text
    with pytest.raises(HeliosError, match="HELIOS_NATIVE: the kernels are not built"):
        choose_library("avx2", tmp_path / "none.so")


def test_a_file_that_is_no_library_is_not_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "broken.so").write_bytes(b"\x7fELF, or so it says")
    assert choose_library("", tmp_path / "broken.so") is None
    assert "the kernels cannot be loaded" in caplog.text


def test_the_variable_is_read_by_a_process() -> None:
    kernels_file()
    code = "from helios_server.native.library import library; print(library() and library().isa)"
    for word, answer in (("off", "None"), (_machine()[0], _machine()[0])):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "HELIOS_NATIVE": word},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == answer


def test_kernels_that_compute_wrongly_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A build whose best instruction set has one wrong number in one loop: the next lower one serves."""
    machine = _unpinned()
    if machine[-1] not in _FAULTS:
        pytest.skip(f"there is no fault to put into the kernels of {machine[-1]}, the best here")
    name, right, wrong, products = _FAULTS[machine[-1]]
    sources = tmp_path / "kernels"
    shutil.copytree(building.SOURCES, sources)
    file = sources / name
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, wrong))
    monkeypatch.setattr(building, "SOURCES", sources)
    broken = building.build(("-O1",), tmp_path)
    chosen = choose_library("", broken)
    assert chosen is not None
    assert chosen.isa == machine[-2]
    best = machine[-1]
    assert f"the {best} kernels compute {products} wrongly on this machine and are not used" in caplog.text
    with pytest.raises(HeliosError, match=f"HELIOS_NATIVE: '{best}' computes {products} wrongly"):
        choose_library(best, broken)


def test_what_the_compiler_lacked_says_so_and_is_refused_when_pinned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if _unpinned()[-1] != "avx512_bf16":
        pytest.skip("avx512_bf16 is left out of a build here, and it is not the best of this processor")
    caplog.set_level(logging.INFO)
    without = building.build(("-O0", "-DHELIOS_WITHOUT_BF16"), tmp_path)
    chosen = choose_library("", without)
    assert chosen is not None
    assert chosen.isa == "avx512"
    assert "the kernels are built without 'avx512_bf16', which this processor has" in caplog.text
    with pytest.raises(HeliosError, match="HELIOS_NATIVE: the kernels are built without 'avx512_bf16'"):
        choose_library("avx512_bf16", without)


@every_isa
def test_scratch_memory_grows_with_tokens_and_threads_and_not_with_the_context(isa: str) -> None:
    shape = Shape(576, 9, 3, 64, 1536, 1e-5, 16, torch.float16)
    one, many = kernels(isa).scratch_bytes(shape, 1), kernels(isa).scratch_bytes(shape, 129)
    line = 4 * (576 + 15 * 64 + 9 * 64 + 1536)  # normed, queries with keys and values, mixed, inner: float32
    assert 128 * line <= many - one <= 128 * (line + 2 * 1536 + 64)  # and the row in 16 bits
    assert kernels(isa, 2).scratch_bytes(shape, 1) > one


# -- what a call refuses


def _world(isa: str) -> tuple[World, Library, list[Layer]]:
    world = World(_SHAPE, [Row(3, 2), Row(6, 1)], 0)
    return world, kernels(isa), world.packed(kernels(isa), "float16")


@every_isa
@pytest.mark.parametrize(
    ("field", "index", "value", "problem"),
    [
        ("positions", 0, 400, "beyond the rotary table"),
        ("positions", 1, -1, "beyond the rotary table"),
        ("slots", 2, 10**6, "outside the slabs or the page table"),
        ("slots", 2, -1, "outside the slabs or the page table"),
        ("contexts", 2, 0, "outside the slabs or the page table"),
        ("contexts", 2, 1000, "outside the slabs or the page table"),
        ("table_rows", 2, 2, "outside the slabs or the page table"),
        ("table_rows", 2, -1, "outside the slabs or the page table"),
        ("pages", (0, 1), 77, "outside the slabs or the page table"),
        ("pages", (1, 0), -1, "outside the slabs or the page table"),
    ],
)
def test_a_step_that_points_outside_is_refused(
    isa: str, field: str, index: int, value: int, problem: str
) -> None:
    world, library, layers = _world(isa)
    step = world.step()
    getattr(step, field)[index] = value
    hidden = world.hidden.clone()
    with pytest.raises(ValueError, match=problem):
        library.run_layers(world.shape, layers, hidden, step, world.slabs)
    assert torch.equal(hidden, world.hidden)


@every_isa
def test_tensors_that_are_not_as_said_are_refused_by_name(isa: str) -> None:
    world, library, layers = _world(isa)
    step, hidden = world.step(), world.hidden.clone()
    matrix = library.pack(torch.ones(3, 5), None, "float16")
    with pytest.raises(ValueError, match=r"x: is torch.float32 \[2, 4\], must be torch.float32 \[2, 5\]"):
        library.matmul(matrix, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"x: .* not contiguous"):
        library.matmul(matrix, torch.ones(5, 2).T)
    with pytest.raises(ValueError, match=r"hidden: is torch.float64"):
        library.run_layers(world.shape, layers, hidden.double(), step, world.slabs)
    with pytest.raises(ValueError, match="slabs: there are 1 for 2 layers"):
        library.run_layers(world.shape, layers, hidden, step, world.slabs[:1])
    with pytest.raises(ValueError, match=r"slabs: is torch.float16"):
        library.run_layers(world.shape, layers, hidden, step, [slab.half() for slab in world.slabs])
    with pytest.raises(ValueError, match=r"contexts: is torch.int64"):
        library.run_layers(world.shape, layers, hidden, replace(step, contexts=step.positions), world.slabs)
    with pytest.raises(
        ValueError, match=r"sin: is torch.float32 \[399, 4\], must be torch.float32 \[400, 4\]"
    ):
        library.run_layers(world.shape, layers, hidden, replace(step, sin=step.sin[:-1]), world.slabs)
    with pytest.raises(ValueError, match=r"out: is torch.float32 \[2, 4\], must be torch.float32 \[2, 3\]"):
        library.matmul(matrix, torch.ones(2, 5), torch.empty(2, 4))
    with pytest.raises(IndexError, match=r"ids: one is outside 0..2"):
        matrix.rows(torch.tensor([3]))


@every_isa
def test_a_product_goes_where_it_is_asked_for(isa: str) -> None:
    library, x = kernels(isa), torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    matrix, out = library.pack(torch.ones(3, 5), torch.ones(3), "float16"), torch.full((2, 3), torch.nan)
    assert library.matmul(matrix, x, out) is out
    assert torch.equal(out, library.matmul(matrix, x))


@every_isa
def test_layers_of_another_shape_are_refused(isa: str) -> None:
    world, library, layers = _world(isa)
    other = replace(_SHAPE, inner=21)
    with pytest.raises(ValueError, match="step: its sizes do not fit together"):
        library.run_layers(other, layers, world.hidden.clone(), world.step(), world.slabs)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"head_dim": 7}, "head_dim: 7"), ({"heads": 3}, "heads: 3"), ({"kv": torch.int16}, "kv: torch.int16")],
)
def test_a_shape_that_no_kernel_has_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(_SHAPE, **changes)  # type: ignore[arg-type]
