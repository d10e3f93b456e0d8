"""The same engine on a CUDA device: tokens, memory and energy. Run on a machine that has one:
`python -m pytest tests/gpu`.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helios_contract.serves import PRECISIONS, Bundle, Precision
from helios_server.engine.engine import Engine
from helios_server.engine.limits import EngineConfig
from helios_server.engine.sampling import SamplingParams
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.sweep import EFFORTS, Effort
from helios_server.profile.timing import measure_timing
from helios_server.profile.timing_settings import TimingSettings
from helios_server.progress import Progress

from tests.checkpoints import FAMILIES, make_checkpoint
from tests.engine.bundles import random_bundle
from tests.engine.fill_memory import write_every_page
from tests.engine.helpers import prompt_of, running, send
from tests.engine.oracle import Library, transformers_greedy
from tests.engine.test_changes import LONG, PROMPTS, change, depths
from tests.rpc.pods import child, generate_request, speaking
from tests.rpc.test_serve import ready

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MIB = 1 << 20
EXACT = EngineConfig(device="cuda", dtype="float64", max_context=256)
SERVED = EngineConfig(device="cuda", max_context=4096)
LIMIT_MIB = 4096
TOLD = {"memory_mib": LIMIT_MIB, "tokens_per_request": 512}
LAYERS = 16
SHAPE = {  # of a model of a billion parameters
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model", layers=6, seed=1)


@pytest.fixture(scope="module")
def heads(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    one, two = (random_bundle(folder / str(seed), tiny, (2, 4), seed) for seed in (1, 2))
    return one, two


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random numbers: only its size matters."""
    path = tmp_path_factory.mktemp("large") / "model"
    return make_checkpoint(path, layers=LAYERS, dtype=torch.bfloat16, **SHAPE)


@pytest.fixture
def no_more_than_the_limit() -> Iterator[int]:
    """Bytes that the device gives this process at most, what CUDA itself takes included."""
    torch.zeros(1, device="cuda")
    limit = LIMIT_MIB * MIB
    outside = held() - torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((limit - outside) / torch.cuda.mem_get_info()[1])
    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def held() -> int:
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


# -- tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers_at_every_depth(family: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / family, family, layers=5, seed=3)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((1, 16, 33, 100))]
    with running(path, EXACT, exit_layers=(2, 3)) as engine:
        streams = {
            (depth, prompt): send(engine, prompt, depth, max_tokens=24, ignore_eos=True)
            for depth in (2, 3, 5)
            for prompt in prompts
        }
        for (depth, prompt), stream in streams.items():
            wanted = transformers_greedy(path, prompt, 24, depth, torch.float64)
            assert list(stream.result().output_ids) == wanted, (depth, len(prompt))


def test_streams_through_changes_equal_the_plain_loop(tiny: Path, heads: tuple[Bundle, Bundle]) -> None:
    """Swapped to other heads, shrunk and grown while they run; the loop runs on the CPU."""
    one, two = heads
    library = Library("float64", {spec.digest: spec.uri for spec in heads})
    served = {"exits_uri": one.uri, "exits_digest": one.digest}
    with running(tiny, EXACT, layer_budget=4, exit_layers=(2, 4), **served) as engine:
        streams = [send(engine, prompt, **LONG) for prompt in PROMPTS]
        streams[0].wait_for(10)
        change(engine, exits_uri=two.uri, exits_digest=two.digest, candidate="second")
        streams[0].wait_for(30)
        change(engine, layer_budget=2)
        streams[0].wait_for(50)
        change(engine, layer_budget=6)
        events = [stream.result() for stream in streams]
    for prompt, event in zip(PROMPTS, events, strict=True):
        library.check(prompt, event, SamplingParams(**LONG))  # type: ignore[arg-type]
    assert depths(events[0])[:3] == [4, 4, 2]


def test_preemption_does_not_change_a_request(tiny: Path) -> None:
    config = EngineConfig(device="cuda", dtype="float64", max_context=96)
    with running(tiny, config) as engine:
        engine.at_boundary(lambda: engine.serving.resize(12)).result()
        prompts = [prompt_of(40 + i, i) for i in range(6)]
        alone = [send(engine, prompt, max_tokens=50, ignore_eos=True).result() for prompt in prompts]
        crowd = [send(engine, prompt, max_tokens=50, ignore_eos=True) for prompt in prompts]
        together = [stream.result() for stream in crowd]
    assert [event.output_ids for event in together] == [event.output_ids for event in alone]
    assert sum(event.preemptions for event in together) > 0


# -- memory --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """An engine's parts know each other: without a collection they would still be held by the next test."""
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("layers", [4, 10, 16])
def test_every_page_that_was_planned_survives_the_limit(
    large: Path, layers: int, no_more_than_the_limit: int
) -> None:
    with running(large, SERVED, layer_budget=layers, exit_layers=(layers,), **TOLD) as engine:
        engine.at_boundary(lambda: write_every_page(engine, together=64)).result()
        assert planned(engine) == pytest.approx(held(), rel=0.02)
        assert planned(engine) > 0.9 * no_more_than_the_limit
        streams = [send(engine, prompt_of(4000, seed), max_tokens=3, temperature=1.0) for seed in range(8)]
        assert all(stream.result().output_ids for stream in streams)
        print(f"{layers} layers: {planned(engine)} planned, {torch.cuda.max_memory_reserved()} most reserved")


def test_tensor_bytes_are_those_of_the_plan(large: Path) -> None:
    with running(large, SERVED, layer_budget=10, exit_layers=(10,), **TOLD) as engine:
        serving = engine.serving
        facts, backbone = serving.model.facts, serving.weights.backbone
        plan = serving.model.plan(serving.limits, serving.weights.heads, backbone.numerics.device)
        kv_bytes = serving.capacity.kv_bytes
    assert facts.fixed_bytes + 10 * facts.layer_bytes == pytest.approx(backbone.resident_bytes, rel=0.02)
    assert plan.pages * facts.page_tokens * 10 * facts.kv_bytes_per_token_layer == kv_bytes


def test_shrinking_and_growing_move_memory_between_weights_and_cache(
    large: Path, no_more_than_the_limit: int
) -> None:
    """Under a limit that leaves no room for two caches; requests run all the while."""
    with running(large, SERVED, exit_layers=(4,), **TOLD) as engine:
        deep = engine.serving.capacity
        streams = [send(engine, prompt_of(100, seed), max_tokens=400, ignore_eos=True) for seed in range(8)]
        for stream in streams:
            stream.wait_for(5)
        change(engine, layer_budget=4)
        shallow = engine.serving.capacity
        assert shallow.weight_bytes < deep.weight_bytes
        assert shallow.kv_capacity_tokens > 4 * deep.kv_capacity_tokens
        assert held() == pytest.approx(planned(engine), rel=0.02)
        change(engine, layer_budget=16)
        assert engine.serving.capacity.kv_capacity_tokens == deep.kv_capacity_tokens
        assert all(len(stream.result().output_ids) == 400 for stream in streams)
        assert held() <= no_more_than_the_limit  # seen: 2.3 % above the plan


def test_a_model_exchanged_in_place_leaves_nothing_behind(
    large: Path, tmp_path: Path, no_more_than_the_limit: int
) -> None:
    """There and back, under a limit that holds one of them."""
    other = make_checkpoint(tmp_path / "other", layers=6, dtype=torch.bfloat16, seed=1, **SHAPE)
    with running(large, SERVED, exit_layers=(4,), **TOLD) as engine:
        rows = engine.load().max_batch_size
        for path in (other, large):
            change(engine, model_uri=f"file://{path}", model_revision="", candidate=path.parent.name)
            assert held() == pytest.approx(planned(engine), rel=0.02)
            assert send(engine, prompt_of(20), max_tokens=3, ignore_eos=True).result().output_ids
        assert engine.load().max_batch_size == rows


def planned(engine: Engine) -> int:
    capacity = engine.serving.capacity
    return capacity.process_start_bytes + capacity.weight_bytes + capacity.kv_bytes


# -- doors ---------------------------------------------------------------------------------------------------


async def test_a_server_answers_over_grpc(tiny: Path, tmp_path: Path) -> None:
    device = ("--device", "cuda", "--dtype", "float64", "--memory-mib", "4096")
    async with child(tmp_path, "--model", f"file://{tiny}", *device) as pod:
        await ready(pod)
        async with speaking(await pod.ports()) as served:
            said = [message async for message in served.client.generate(generate_request(max_tokens=20))]
            assert sum(len(message.chunk.token_ids) for message in said) == 20
            assert (await served.telemetry()).capacity.layers_loaded == 6


# -- profile -------------------------------------------------------------------------------------------------


def test_a_timing_row_with_the_devices_own_energy(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=3))
    candidates = open_backbone([Candidate("own", f"file://{large}")], None)
    document = measure_timing(candidates, TimingSettings(device="cuda", memory_mib=LIMIT_MIB), Progress())
    assert document["energy"]["source"] == "nvml"
    assert document["energy"]["idleMilliwatts"] > 0
    assert all(point["joulesPerMegatoken"] > 0 for point in document["energy"]["points"])
    assert document["fit"]["perLayerNs"] > 0
    assert document["memory"]["layerBytes"] == Backbone.load(Checkpoint.open(large), 1, "cuda").layer_bytes


@pytest.mark.parametrize(
    "precision",
    [*PRECISIONS[1:], Precision("auto", "fp8"), Precision("int8", "fp8")],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_precision_computes_what_the_processor_does(tiny: Path, precision: Precision, dtype: str) -> None:
    """fp8 is refused there: what it may be apart is the rounding of its keys and values."""
    checkpoint, ids = Checkpoint.open(tiny), torch.arange(60)
    on_cpu = Precision(precision.weight_dtype, "auto") if precision.kv_cache_dtype == "fp8" else precision
    logits = []
    for device, asked, computed in (("cuda", precision, dtype), ("cpu", on_cpu, "float64")):
        backbone = Backbone.load(checkpoint, 6, device, computed, precision=asked)
        step = whole_sequences(backbone.layout, [len(ids)])
        hidden = backbone.run_layers(backbone.embed(ids.to(device), step.positions), 0, 6, step)
        logits.append(backbone.logits(backbone.final_norm(hidden)).double().cpu())
    apart = float((logits[0] - logits[1]).norm() / logits[1].norm())
    assert apart < (0.1 if dtype == "bfloat16" or precision.kv_cache_dtype == "fp8" else 1e-6)
