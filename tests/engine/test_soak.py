"""Thousands of requests while budget, heads, batch and model change: none is stuck, none leaves anything
behind, and what each is told is what the plain loop says, bit for bit on the native path.

`make test-long` asks 10,000 in float64, 5,000 in each native format and 500 of the real model, with a change
every 50 steps; otherwise it is a small part of that.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helios_contract.serves import Bundle
from helios_server.engine.limits import EngineConfig
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.models.checkpoint import Checkpoint

from tests.checkpoints import VOCAB, make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.helpers import audit_of, limits_for, running
from tests.engine.natives import FORMATS, needs_kernels
from tests.engine.oracle import Library
from tests.engine.soak import Changing, Kind, soak
from tests.sizes import examples

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
STEPS = examples(10, long=50)
EXITS, REAL_EXITS = (2, 3), (24, 27)
GENERATED = [("float64", 10_000), *((dtype, 5_000) for dtype in FORMATS)]


def turns(tiny: Path, other: Path, heads: Bundle) -> list[Mapping[str, Any]]:
    """Shrink, grow, other heads, less batch, another model and back."""
    exits = {"exits_uri": heads.uri, "exits_digest": heads.digest}
    return [
        {"layer_budget": 3},
        {"layer_budget": 0, **exits},
        {"layer_budget": 2, "max_batch_size": 5, **exits},
        {"model_uri": f"file://{other}"},
        {"model_uri": f"file://{tiny}"},
    ]


@needs_kernels
@pytest.mark.parametrize(("dtype", "long"), GENERATED, ids=[dtype for dtype, _ in GENERATED])
def test_nothing_leaks_and_nobody_is_disturbed(tmp_path: Path, dtype: str, long: int) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", "qwen3", layers=4, seed=1)
    other = make_checkpoint(tmp_path / "other", layers=5, seed=2)
    heads = random_bundle(tmp_path / "heads", tiny, EXITS, 3)
    limits = {"exit_layers": EXITS, "audit": audit_of(20), "max_queue_size": 64, "max_batch_size": 16}
    config = EngineConfig(dtype=dtype, max_context=128, step_tokens=48, threads=1)
    with running(tiny, config, **limits) as engine:
        assert engine.serving.weights.backbone.is_native == (dtype in FORMATS)
        changing = Changing(engine, turns(tiny, other, heads), limits_for(tiny, **limits), STEPS, pages=16)
        kind = Kind(depths=(0, *EXITS), vocabulary=VOCAB)
        soaked = soak(engine, examples(60, long=long), kind, changing, random.Random(dtype))
    assert soaked.changes >= len(changing.turns)
    soaked.check(Library(dtype, {heads.digest: heads.uri}))
    soaked.check_it_was_a_soak()


@needs_kernels
def test_nor_is_anybody_by_the_real_model(smollm2: Path) -> None:
    general = "builtin://general"
    digest = open_bundle(BundleRef(general), Checkpoint.open(smollm2)).digest
    limits = {
        "exit_layers": REAL_EXITS,
        "exits_uri": general,
        "audit": audit_of(20),
        "max_queue_size": 64,
        "max_batch_size": 16,
    }
    config = EngineConfig(dtype="float16", max_context=128, step_tokens=48, threads=1)
    with running(smollm2, config, **limits) as engine:
        changes: list[Mapping[str, Any]] = [
            {"layer_budget": 24},
            {"layer_budget": 0},
            {"layer_budget": 27, "max_batch_size": 5},
            {"layer_budget": 0, "exits_uri": ""},
        ]
        changing = Changing(
            engine, changes, limits_for(smollm2, **limits), STEPS, pages=examples(12, long=24)
        )
        kind = Kind(depths=(0, *REAL_EXITS), vocabulary=49_152, most=8)
        requests = examples(10, long=500)
        soaked = soak(engine, requests, kind, changing, random.Random("the real model"))
    assert soaked.changes
    soaked.check(Library("float16", {digest: general}))
