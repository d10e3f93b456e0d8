"""Weights in int8 and int4, keys and values in int8: what they compute, against float64 on the very same
numbers; what is held; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helios_contract.serves import PRECISIONS, Precision
from helios_server.engine import host_memory
from helios_server.errors import HeliosError, UnsupportedModelError
from helios_server.exits.head import KINDS, head_shapes
from helios_server.models import linear
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.kv_units import with_units, without_units
from helios_server.models.linear import Linear, Numerics
from helios_server.models.slabs import SlabLayout
from helios_server.native.quantised import Quantised, quantise
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.checkpoints import FAMILIES, VOCAB, make_checkpoint
from tests.engine.natives import TORCH, computing_with, needs_kernels
from tests.models.test_oracle import run
from tests.native.libraries import every_isa, names

QUANTISED = [precision for precision in PRECISIONS if precision != Precision()]
every_precision = pytest.mark.parametrize("precision", QUANTISED, ids=str)
WIDTHS = {"int8": 1 + 4 / 576, "int4": 5 / 8}
"""Bytes of a weight in a matrix whose rows have 576."""


def sequences(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(VOCAB, (length,), generator=generator) for length in lengths]


# -- the numbers ---------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 100), st.sampled_from([1e-6, 1.0, 300.0]), st.integers(0, 999))
def test_int8_is_within_half_a_unit(out: int, size: int, scale: float, seed: int) -> None:
    weight = scale * torch.randn(out, size, generator=torch.Generator().manual_seed(seed))
    held = quantise(weight, "int8")
    unit = weight.abs().amax(1, keepdim=True) / 127
    assert ((held.wide(torch.float64) - weight).abs() <= unit * 0.5001).all()
    assert held.nbytes == out * size + 4 * out


@given(st.integers(1, 40), st.integers(1, 100), st.sampled_from([1e-2, 1.0, 300.0]), st.integers(0, 999))
def test_int4_is_within_half_a_unit_of_its_group(out: int, size: int, scale: float, seed: int) -> None:
    weight = scale * torch.randn(out, size, generator=torch.Generator().manual_seed(seed))
    held = quantise(weight, "int4")
    error = (held.wide(torch.float32) - weight).abs()
    for group, errors in zip(weight.split(32, dim=1), error.split(32, dim=1), strict=True):
        unit = (group.amax(1) - group.amin(1)) / 15
        # Of the unit, 15 times at most, and of the minimum: they have 16 bits, and steps of 2^-24 near zero.
        rounding = 2.0**-10 * group.abs().amax(1) + 2.0**-21
        assert (errors.amax(1) <= unit / 2 + rounding).all()
    assert held.nbytes == out * -(-size // 32) * 20


def test_weights_that_came_from_such_groups_are_what_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    units, minima = (
        torch.rand(48, 3, 1, generator=generator).half(),
        torch.randn(48, 3, 1, generator=generator),
    )
    values = torch.randint(16, (48, 3, 32), generator=generator)
    values[..., 0], values[..., 7] = 0, 15
    weight = (values * units.float() + minima.half().float()).flatten(1)
    assert (
        (quantise(weight, "int4").wide(torch.float32) - weight).abs() <= 2.0**-11 * weight.abs().max()
    ).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-40])
def test_rows_of_one_value_are_kept(dtype: str, value: float) -> None:
    weight = torch.full((5, 70), value)
    assert torch.allclose(quantise(weight, dtype).wide(torch.float32), weight, atol=1e-38)


@pytest.mark.parametrize(("dtype", "value"), [("int8", torch.inf), ("int8", torch.nan), ("int4", -70000.0),
                                              ("int4", -torch.inf), ("int4", torch.nan)])  # fmt: skip
def test_a_weight_that_a_format_cannot_hold_is_named(dtype: str, value: float) -> None:
    weight = torch.ones(4, 40)
    weight[1, 33] = value
    with pytest.raises(HeliosError, match=f"weight_dtype: {dtype} cannot hold a weight"):
        quantise(weight, dtype)


@given(st.sampled_from([2, 20, 64, 128]), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_a_stored_key_is_within_half_a_unit(size: int, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(9, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    stored = with_units(x, torch.int8)
    assert stored.shape == (9, size + 4)
    assert stored.dtype == torch.int8
    unit = x.abs().amax(1, keepdim=True) / 127
    assert ((without_units(stored, torch.int8, torch.float64) - x).abs() <= unit * 0.5001).all()


def test_a_key_that_is_not_finite_is_read_as_such_and_a_tiny_one_as_zero() -> None:
    x = torch.randn(4, 16)
    x[0, 3], x[1, 5], x[2] = torch.inf, torch.nan, 1e-38
    read = without_units(with_units(x, torch.int8), torch.int8, torch.float32)
    assert not read[:2].isfinite().any()
    assert (read[2] == 0).all()
    assert torch.allclose(read[3], x[3], atol=0.02)


# -- whole models --------------------------------------------------------------------------------------------


def _with_held_weights(oracle: torch.nn.Module, dtype: str) -> None:
    """Each matrix of a layer, and the LM head with what is tied to it, becomes what the format leaves."""
    for name, module in oracle.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in f".{name}":
            module.weight.data = quantise(module.weight.data, dtype).wide(torch.float64)
    oracle.lm_head.weight.data.copy_(quantise(oracle.lm_head.weight.data, dtype).wide(torch.float64))  # type: ignore[union-attr,operator,arg-type]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_logits_equal_transformers_on_the_same_weights(tmp_path: Path, family: str, dtype: str) -> None:
    path = make_checkpoint(tmp_path, family, layers=2, tied=family != "qwen2", seed=1)
    backbone = Backbone.load(Checkpoint.open(path), 2, dtype="float64", precision=Precision(dtype))
    oracle = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    _with_held_weights(oracle, dtype)
    prompts = sequences(37, 5)
    for ours, sequence in zip(run(backbone, prompts, 2), prompts, strict=True):
        with torch.no_grad():
            assert (ours - oracle(sequence[None]).logits[0]).abs().max() < 1e-8


# Of logits of about 10. A key is rounded on both sides, which may fall apart by one step; int8 rounds a row
# to 15 bits, tiles round it to bfloat16; embeddings, and keys and values of auto, are rounded to the dtype.
_TOLERANCE = {"float16": 0.15, "bfloat16": 0.4}


@pytest.mark.parametrize("isa", [*names(), TORCH])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_precision
def test_logits_are_near_those_of_float64_in_the_same_precision(
    tmp_path: Path, isa: str, dtype: str, precision: Precision
) -> None:
    checkpoint = Checkpoint.open(
        make_checkpoint(tmp_path, "qwen3", layers=3, seed=1, tied=dtype == "float16")
    )
    with computing_with(isa):
        backbone = Backbone.load(checkpoint, 3, dtype=dtype, precision=precision)
    assert backbone.is_native == (isa != TORCH)
    exact = Backbone.load(checkpoint, 3, dtype="float64", precision=precision)
    assert backbone.precision == exact.precision == precision
    prompts = sequences(70, 3)
    for ours, theirs in zip(run(backbone, prompts, 3), run(exact, prompts, 3), strict=True):
        assert (ours - theirs).abs().max() < _TOLERANCE[dtype]


@pytest.mark.parametrize("isa", [*names(), TORCH])
@pytest.mark.parametrize("kind", KINDS)
def test_heads_keep_their_floats(tmp_path: Path, isa: str, kind: str) -> None:
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=2, seed=1))
    generator = torch.Generator().manual_seed(4)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in head_shapes(kind, 64).items()}
    hidden = torch.randn(9, 64, generator=generator)
    applied, sizes = list[Tensor](), list[int]()
    for precision in (Precision(), Precision("int8", "int8"), Precision("int4")):
        with computing_with(isa):
            head = KINDS[kind](tensors, Backbone.load(checkpoint, 1, dtype="float16", precision=precision))
        applied.append(head.apply(hidden))
        sizes.append(head.nbytes)
    assert all(torch.equal(each, applied[0]) for each in applied)
    assert len(set(sizes)) == 1


@given(st.sampled_from([2, 20, 64]), st.sampled_from([1e-6, 1.0, 1e4]), st.integers(0, 99))
def test_an_fp8_key_is_within_its_rounding(size: int, scale: float, seed: int) -> None:
    x = scale * torch.randn(9, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    read = without_units(with_units(x, torch.float8_e4m3fn), torch.float8_e4m3fn, torch.float64)
    least = x.abs().amax(1, keepdim=True) / 448 * 2.0**-9  # below, elements are subnormal
    assert ((read - x).abs() <= x.abs() * 2.0**-4 + least).all()


def test_attention_over_fp8_as_a_cuda_device_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_check_precision", lambda *_: None)  # this processor would refuse it
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path, layers=3, seed=1))
    exact, fp8 = (
        Backbone.load(checkpoint, 3, dtype="float64", precision=Precision("auto", kv))
        for kv in ("auto", "fp8")
    )
    assert fp8.layout.token_bytes == 2 * 2 * (16 + 4)
    for ours, theirs in zip(run(fp8, sequences(60, 3), 3), run(exact, sequences(60, 3), 3), strict=True):
        assert 0 < (ours - theirs).norm() / theirs.norm() < 0.1


# -- what is held --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", [*names(), TORCH])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_matrix_takes_the_memory_that_its_format_says(isa: str, dtype: str) -> None:
    with computing_with(isa):
        numerics = Numerics.of("cpu", "float16", Precision(dtype))
    weight = torch.randn(1536, 576)
    Linear(weight, None, numerics)
    host_memory.trim()
    before = host_memory.anonymous_bytes()
    kept = [Linear(weight, None, numerics) for _ in range(24)]
    host_memory.trim()
    taken = host_memory.anonymous_bytes() - before
    assert kept[0].nbytes == pytest.approx(WIDTHS[dtype] * 1536 * 576, rel=0.01)
    assert taken == pytest.approx(sum(linear.nbytes for linear in kept), rel=0.05)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_no_float_copy_is_kept_and_no_more_than_a_part_is_ever_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool, dtype: str
) -> None:
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64, "num_attention_heads": 9}
    sizes |= {"num_key_value_heads": 3, "vocab_size": 9000}
    path = make_checkpoint(tmp_path, layers=1, dtype=torch.float16, tied=tied, **sizes)
    read, real = list[int](), Checkpoint.tensor

    def counted(checkpoint: Checkpoint, name: str, rows: int | slice | None = None) -> Tensor:
        tensor = real(checkpoint, name, rows)
        read.append(tensor.numel())
        return tensor

    monkeypatch.setattr(Checkpoint, "tensor", counted)
    backbone = Backbone.load(Checkpoint.open(path), 1, dtype="float16", precision=Precision(dtype))
    layer = 576 * (2 * 576 + 2 * 192) + 3 * 576 * 1536
    assert backbone.layer_bytes == pytest.approx(WIDTHS[dtype] * layer, rel=0.015)
    rope = 2 * 4 * 32 * backbone.config.max_context
    table = 9000 * 576
    whole = WIDTHS[dtype] * table + (0 if tied else 2 * table) + rope
    assert backbone.fixed_bytes == pytest.approx(whole, rel=0.01)
    assert max(read) <= (4096 * 576 if tied else table)  # of another embedding all is kept


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_torch_makes_floats_of_a_block_at_a_time(dtype: str) -> None:
    weight, x = torch.randn(40000, 64), torch.randn(3, 64)
    linear = Linear(weight, None, Numerics.of("cpu", "float32", Precision(dtype)))
    held = quantise(weight, dtype)
    assert len(list(held.blocks())) == 3
    assert torch.allclose(linear(x), x @ held.wide(torch.float32).T, atol=1e-4)


@pytest.mark.parametrize("head_dim", [16, 64])
def test_keys_and_values_take_their_bytes_and_a_unit(tmp_path: Path, head_dim: int) -> None:
    config = Checkpoint.open(make_checkpoint(tmp_path, layers=1, head_dim=head_dim)).config
    for precision in (Precision("auto", "int8"), Precision("int8", "int8")):
        layout = SlabLayout.of(config, Numerics.of("cpu", "float16", precision))
        assert layout.token_bytes == 2 * config.num_kv_heads * (head_dim + 4)
        assert layout.page_bytes == 16 * layout.token_bytes
        slab = torch.zeros(layout.shape(3), dtype=layout.dtype)
        assert slab.numel() * slab.element_size() == 3 * layout.page_bytes


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "problem"),
    [
        (Precision("int3"), "weight_dtype: 'int3' is not supported; Use one of auto, int8, int4"),
        (Precision("fp8"), "weight_dtype: 'fp8' is not supported"),
        (Precision(""), "weight_dtype: '' is not supported"),
        (Precision("int8", "int4"), "kv_cache_dtype: 'int4' is not supported; Use one of auto, int8, fp8"),
        (Precision("auto", "float16"), "kv_cache_dtype: 'float16' is not supported"),
        (
            Precision("auto", "fp8"),
            "kv_cache_dtype: 'fp8' needs a CUDA device, this is cpu; Use int8, or auto",
        ),
    ],
    ids=str,
)
def test_a_precision_that_cannot_be_had_is_named(tmp_path: Path, precision: Precision, problem: str) -> None:
    with pytest.raises(UnsupportedModelError, match=problem):
        Backbone.load(Checkpoint.open(make_checkpoint(tmp_path, layers=1)), 1, precision=precision)


@needs_kernels
@every_isa
def test_kernels_hold_the_numbers_that_torch_multiplies(isa: str) -> None:
    weight = torch.randn(90, 70, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([3, 0, 89])
    for dtype in ("int8", "int4"):
        with computing_with(isa):
            native = Linear(weight, None, Numerics.of("cpu", "float16", Precision(dtype)))
        with computing_with(TORCH):
            torchs = Linear(weight, None, Numerics.of("cpu", "float16", Precision(dtype)))
        assert torch.equal(native.rows(ids), torchs.rows(ids))
        assert torch.equal(native.rows(ids), quantise(weight, dtype).wide(torch.float32)[ids])


def test_one_matrix_of_several_is_what_each_is() -> None:
    weights = [torch.randn(rows, 50, generator=torch.Generator().manual_seed(rows)) for rows in (3, 40, 7)]
    for dtype in ("int8", "int4"):
        whole = Quantised.joined([quantise(weight, dtype) for weight in weights])
        assert whole.shape == (50, 50)
        assert torch.equal(whole.wide(torch.float32), quantise(torch.cat(weights), dtype).wide(torch.float32))
