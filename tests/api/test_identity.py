"""Names of rows: golden values, because a name that changes throws every profile away."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from typing import Any

import pytest
from helios_operator.api.identity import prompts_digest, quality_name, timing_name
from helios_operator.api.rows import Hardware, QualityIdentity, TimingIdentity

HARDWARE = Hardware("NVIDIA-L4", 1, 23034, "AMD EPYC", 8, "float16")
TIMING = TimingIdentity("hf://acme/small-1b", "4ab1c0d", "float16", ("bare", "mlp"), HARDWARE, 3)
QUALITY = QualityIdentity("hf://acme/small-1b", "4ab1c0d", "sha256:2222", "sha256:3333")


def test_names_are_golden() -> None:
    assert timing_name(TIMING) == "t-59ad967ace9f"
    assert timing_name(replace(TIMING, hardware=replace(HARDWARE, accelerator=None))) == "t-36a8d7009e4d"
    assert quality_name(QUALITY) == "q-aa888eab9ef4"


def test_the_order_of_head_kinds_does_not_matter() -> None:
    assert timing_name(replace(TIMING, head_kinds=("mlp", "bare"))) == timing_name(TIMING)


def changed(value: Any) -> Any:
    if isinstance(value, tuple):
        return (*value, "other")
    return value + 1 if isinstance(value, int) else f"{value}x"


@pytest.mark.parametrize("field", [f.name for f in fields(TimingIdentity) if f.name != "hardware"])
def test_every_part_of_a_timing_identity_counts(field: str) -> None:
    assert timing_name(replace(TIMING, **{field: changed(getattr(TIMING, field))})) != timing_name(TIMING)


@pytest.mark.parametrize("field", [f.name for f in fields(Hardware) if f.name != "dtype"])
def test_every_part_of_the_hardware_counts(field: str) -> None:
    other = replace(HARDWARE, **{field: changed(getattr(HARDWARE, field))})
    assert timing_name(replace(TIMING, hardware=other)) != timing_name(TIMING)


@pytest.mark.parametrize("field", [f.name for f in fields(QualityIdentity)])
def test_every_part_of_a_quality_identity_counts(field: str) -> None:
    assert quality_name(replace(QUALITY, **{field: changed(getattr(QUALITY, field))})) != quality_name(
        QUALITY
    )


def test_the_digest_of_prompts_is_of_their_json() -> None:
    expected = hashlib.sha256('["Grüße","b \\"c\\""]'.encode()).hexdigest()
    assert prompts_digest(["Grüße", 'b "c"']) == f"sha256:{expected}"
    assert prompts_digest(["a", "b"]) != prompts_digest(["b", "a"])
    assert prompts_digest(["ab"]) != prompts_digest(["a", "b"])
