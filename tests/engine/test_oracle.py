"""The engine says what transformers and the plain loop say, alone or in company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.offline import Shelf, generate
from helios_server.engine.request import Served, Span
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import BundleError, CheckpointError
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer

from tests.checkpoints import FAMILIES, make_checkpoint
from tests.engine.helpers import Stream, prompt_of, running, send
from tests.engine.oracle import Library, same_but_for_near_ties, transformers_greedy
from tests.sizes import LONG

PROSE = "The harpooner looked out over the grey water, and the ship rose slowly on the swell. "
CODE = "def read_lines(path):\n    with open(path) as handle:\n        for line in handle:\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers_at_every_depth(family: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / family, family, layers=5, seed=3)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((1, 5, 16, 33, 100))]
    with running(path, exit_layers=(2, 3)) as engine:
        streams = {
            (depth, prompt): send(engine, prompt, depth, max_tokens=24, ignore_eos=True)
            for depth in (2, 3, 5)
            for prompt in prompts
        }
        for (depth, prompt), stream in streams.items():
            wanted = transformers_greedy(path, prompt, 24, depth, torch.float64)
            assert list(stream.result().output_ids) == wanted, (depth, len(prompt))


@pytest.mark.parametrize("depth", [2, 6])
def test_the_plain_loop_equals_transformers(tiny: Path, depth: int) -> None:
    checkpoint = Checkpoint.open(tiny)
    served = Served("c", f"file://{tiny}", "", checkpoint.fingerprint, "", depth)
    params = SamplingParams(ignore_eos=True)
    said = generate(Shelf({}, "float64"), "r", prompt_of(40), params, [Span(0, served)], 30)
    assert list(said.token_ids) == transformers_greedy(tiny, prompt_of(40), 30, depth, torch.float64)


def test_a_span_of_another_backbone_is_not_followed(tiny: Path, other: Path) -> None:
    served = Served("c", f"file://{other}", "", Checkpoint.open(tiny).fingerprint, "", 2)
    with pytest.raises(CheckpointError, match="is another backbone than the span's"):
        Shelf({}, "float64")(served)
    with pytest.raises(BundleError, match="no bundle with this digest was given"):
        Shelf({}, "float64")(
            replace(served, backbone=Checkpoint.open(other).fingerprint, exits_digest="sha256:1")
        )


def test_company_does_not_change_a_request(tiny: Path) -> None:
    config = EngineConfig(dtype="float64", max_context=256, step_tokens=48)
    asked = [
        (prompt_of(5 + 7 * i, i), (2, 4, 6)[i % 3], {"temperature": 0.8 * (i % 2), "seed": i})
        for i in range(16)
    ]

    def submit(engine: Engine, index: int) -> Stream:
        prompt, depth, sampling = asked[index]
        return send(engine, prompt, depth, max_tokens=30, ignore_eos=True, **sampling)

    with running(tiny, config, exit_layers=(2, 4)) as engine:
        alone = [submit(engine, index).result().output_ids for index in range(16)]
        together = [stream.result().output_ids for stream in [submit(engine, index) for index in range(16)]]
    assert together == alone


def test_preemption_does_not_change_a_request(tiny: Path) -> None:
    """A pool of 12 pages for 6 requests that fill 6 each: the newest are sent back, and come again."""
    config = EngineConfig(dtype="float64", max_context=96)
    with running(tiny, config) as engine:
        engine.at_boundary(lambda: engine.serving.resize(12)).result()
        prompts = [prompt_of(40 + i, i) for i in range(6)]
        alone = [send(engine, prompt, max_tokens=50, ignore_eos=True).result() for prompt in prompts]
        crowd = [send(engine, prompt, max_tokens=50, ignore_eos=True) for prompt in prompts]
        together = [stream.result() for stream in crowd]
        assert engine.telemetry().preemptions > 0
    assert [event.output_ids for event in together] == [event.output_ids for event in alone]
    assert sum(event.preemptions for event in together) > 0


@pytest.mark.long
def test_the_real_model_in_a_crowd_equals_transformers(smollm2: Path) -> None:
    """Of 8; of 16 in `make test-long`."""
    tokenizer = Tokenizer.open(smollm2)
    prompts = [
        tuple(tokenizer.encode((PROSE, CODE)[i % 2] * (1 + i % 3))[i:]) for i in range(16 if LONG else 8)
    ]
    config = EngineConfig(dtype="float32", max_context=512, step_tokens=64, threads=1)
    with running(smollm2, config) as engine:
        crowd = [send(engine, prompt, max_tokens=12, ignore_eos=True) for prompt in prompts]
        for prompt, stream in zip(prompts, crowd, strict=True):
            same_but_for_near_ties(smollm2, prompt, list(stream.result().output_ids), torch.float32)


def test_the_real_model_preempted_and_resumed_equals_the_plain_loop(smollm2: Path) -> None:
    """As it serves on a CPU, in the machine's own format: 4 requests that need more pages than there are."""
    tokenizer = Tokenizer.open(smollm2)
    prompts = [tuple(tokenizer.encode((PROSE, CODE)[i % 2] * 2)[i:]) for i in range(4)]
    library = Library(None)
    with running(
        smollm2, EngineConfig(max_context=128, threads=1), exit_layers=(24,), layer_budget=24
    ) as engine:
        engine.at_boundary(lambda: engine.serving.resize(12)).result()
        crowd = [send(engine, prompt, max_tokens=45, ignore_eos=True) for prompt in prompts]
        for prompt, stream in zip(prompts, crowd, strict=True):
            library.check(prompt, stream.result())
        assert engine.telemetry().preemptions > 0
