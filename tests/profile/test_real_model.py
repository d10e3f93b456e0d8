"""SmolLM2 with the built-in bundles: what is measured is what the heads are known to do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from helios_contract.results import ExitQuality
from helios_server.exits.data import prompts
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.quality import QualitySettings, measure_quality
from helios_server.progress import Progress

from tests.profile.planted import noise_bundle

PROMPTS = 6


@cache
def exits(domain: str, bundle: str) -> dict[int, ExitQuality]:
    """By layer. About 500 tokens: enough to tell the domains apart, not to tell tenths of a percent."""
    opened = open_backbone([Candidate("one", f"file://{ensure_smollm2()}", None, bundle)], None)
    document = measure_quality(opened, prompts(domain, PROMPTS), QualitySettings(), Progress())
    return {exit_.layer: exit_ for exit_ in document.rows[0].exits}


def quality(measured: dict[int, ExitQuality], layer: int) -> float:
    return 100 * measured[30].millibits / measured[layer].millibits


@pytest.mark.parametrize(
    ("domain", "layer", "least", "most"),
    [("prose", 24, 91, 98), ("prose", 27, 94, 100), ("code", 24, 80, 91), ("code", 27, 88, 97)],
)
def test_the_general_bundle_does_on_its_domains_what_it_is_known_to_do(
    domain: str, layer: int, least: float, most: float
) -> None:
    measured = exits(domain, "builtin://general")
    assert least <= quality(measured, layer) <= most
    assert 50 <= measured[layer].agreement_percent <= 95
    assert measured[24].agreement_percent < measured[27].agreement_percent < 100


def test_prose_reaches_a_quality_at_24_layers_that_code_does_not() -> None:
    prose, code = (exits(domain, "builtin://general") for domain in ("prose", "code"))
    assert quality(prose, 24) > quality(code, 24) + 3


def test_noise_is_measured_as_noise(tmp_path: Path) -> None:
    model = ensure_smollm2()
    assert Checkpoint.open(model).config.num_layers == 30
    noise = noise_bundle(tmp_path / "noise", model, (24,))
    measured = exits("prose", f"file://{noise}")
    assert quality(measured, 24) < 50
    assert measured[24].agreement_percent < 10
