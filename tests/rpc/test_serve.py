"""`helios serve` as a process: it drains on SIGTERM, and wrong input ends it in one line with nothing
left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
from helios_contract import limits as document
from helios_proto.v1 import generation_pb2 as pb
from helios_proto.v1 import generation_pb2_grpc
from helios_server.serve import main, parse

from tests.checkpoints import make_checkpoint
from tests.profile.planted import noise_bundle
from tests.rpc.pods import EXITS, LAYERS, Child, child, eventually, generate_request, limits_for, speaking

STREAMS, TOKENS = 20, 150
MEMORY = ("--memory-mib", "4096")


def limits_file(folder: Path, model: Path, **changes: object) -> Path:
    file = folder / "limits.json"
    file.write_text(document.to_json(limits_for(model, **changes)))
    return file


async def ready(pod: Child) -> None:
    ports = await pod.ports()

    async def answers() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports.metrics_port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: pod\r\n\r\n")
        status = (await reader.read())[9:12]
        writer.close()
        return status == b"200"

    await eventually(answers, 180)


async def frozen(pod: Child, folder: Path) -> int:
    """Objects that collections of garbage pass over: what is imported."""

    async def told() -> bool:
        return (folder / "tasks").exists()

    pod.process.send_signal(signal.SIGUSR1)
    await eventually(told)
    return int((folder / "frozen").read_text())


async def test_sigterm_lets_streams_end_and_turns_new_ones_away(tiny: Path, tmp_path: Path) -> None:
    """20 streams over 5 connections; meanwhile callers that never pause: no status but OK and UNAVAILABLE."""
    file = limits_file(tmp_path, tiny, max_batch_size=8, max_queue_size=64)
    async with child(tmp_path, "--limits", str(file), "--model-name", "chat") as pod:
        ports = await pod.ports()
        await ready(pod)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{ports.port}", options=options) for _ in range(5)]
        outcomes: Counter[str] = Counter()
        lengths: Counter[int] = Counter()

        async def stream(channel: grpc.aio.Channel) -> None:
            call = generation_pb2_grpc.GenerationStub(channel).Generate(generate_request(max_tokens=TOKENS))
            tokens = 0
            async for message in call:
                tokens += len(message.chunk.token_ids)
            lengths[tokens] += 1

        async def all_taken() -> bool:
            load = await generation_pb2_grpc.GenerationStub(channels[0]).GetLoad(pb.GetLoadRequest())
            return load.running + load.waiting + lengths.total() == STREAMS

        async def newcomers(channel: grpc.aio.Channel) -> None:
            stub = generation_pb2_grpc.GenerationStub(channel)
            while "UNAVAILABLE" not in outcomes:
                try:
                    await stub.GetModelInfo(pb.GetModelInfoRequest())
                    outcomes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    outcomes[error.code().name] += 1
                await asyncio.sleep(0.002)

        streams = [asyncio.create_task(stream(channels[i % 5])) for i in range(STREAMS)]
        await eventually(all_taken)
        assert lengths.total() < STREAMS  # or there is nothing to drain
        hammers = [asyncio.create_task(newcomers(channel)) for channel in channels]
        pod.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*streams, *hammers)
        code, _ = await pod.end()
        for channel in channels:
            await channel.close()
    assert code == 0
    assert lengths == {TOKENS: STREAMS}
    assert set(outcomes) <= {"OK", "UNAVAILABLE"}
    assert outcomes["UNAVAILABLE"] > 0


async def test_a_second_signal_ends_it_at_once(tiny: Path, tmp_path: Path) -> None:
    arguments = ("--model", f"file://{tiny}", *MEMORY)
    async with child(tmp_path, *arguments, module="tests.rpc.counting_pod") as pod:
        await ready(pod)
        assert await frozen(pod, tmp_path) > 50_000
        async with speaking(await pod.ports()) as served:
            messages = aiter(served.client.generate(generate_request(max_tokens=3500)))
            await anext(messages)
            pod.process.send_signal(signal.SIGTERM)

            async def draining() -> bool:
                return (await served.telemetry()).draining

            await eventually(draining)
            pod.process.send_signal(signal.SIGTERM)
            code, _ = await pod.end()
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in messages:
                    pass
    assert code == 128 + signal.SIGTERM


async def test_a_switch_that_can_be_neither_made_nor_undone_ends_the_process(
    tiny: Path, tmp_path: Path
) -> None:
    """Whoever runs it starts it again: it must not stay, ready and answering nobody."""
    gone = shutil.copytree(tiny, tmp_path / "gone")
    broken = make_checkpoint(tmp_path / "broken", layers=3, seed=9, shards=3, max_position_embeddings=4096)
    (broken / "model-00003-of-00003.safetensors").unlink()
    arguments = ("--model", f"file://{gone}", *MEMORY, "--drain-timeout", "5")
    async with child(tmp_path, *arguments) as pod:
        await ready(pod)
        async with speaking(await pod.ports()) as served:
            messages = aiter(served.client.generate(generate_request(max_tokens=3500)))
            await anext(messages)
            (gone / "model.safetensors").unlink()
            with pytest.raises(grpc.aio.AioRpcError, match="model-00003-of-00003"):
                await served.set_limits(model_uri=f"file://{broken}", model_revision="r", exit_layers=[])
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in messages:
                    pass
            code, errors = await pod.end()
    assert code == 1
    assert "what served cannot be loaded back" in errors


async def test_told_to_stop_while_the_model_loads_it_goes(tiny: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "heads"
    bundle.mkdir()
    os.mkfifo(bundle / "exits.json")  # whoever reads it waits for a writer that never comes
    file = limits_file(tmp_path, tiny, exits_uri=f"file://{bundle}")
    async with child(tmp_path, "--limits", str(file)) as pod:
        await pod.ports()
        pod.process.send_signal(signal.SIGTERM)
        assert (await pod.end())[0] == 0
    assert not (tmp_path / "ports.json").exists()


async def test_it_serves_what_the_file_says_and_ends_what_outlives_the_drain(
    tiny: Path, heads: Path, tmp_path: Path
) -> None:
    file = limits_file(tmp_path, tiny, layer_budget=EXITS[0], exits_uri=f"file://{heads}", candidate="x")
    arguments = ("--limits", str(file), "--energy-watts", "12", "--drain-timeout", "0.5")
    async with child(tmp_path, *arguments) as pod:
        await ready(pod)
        async with speaking(await pod.ports()) as served:
            info, now = await served.info(), await served.telemetry()
            assert (info.model, info.candidate, info.layer_budget) == ("x", "x", EXITS[0])
            assert info.exits_digest.startswith("sha256:")
            assert now.energy.source in ("declared", "rapl")
            messages = aiter(served.client.generate(generate_request(max_tokens=3500)))
            await anext(messages)
            pod.process.send_signal(signal.SIGINT)
            code, errors = await pod.end()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in messages:
                    pass
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert code == 0
    assert "1 calls still run" in errors
    assert not (tmp_path / "ports.json").exists()


# -- wrong input


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line of a start that must fail, in this process."""
    free = ("--port", "0", "--control-port", "0", "--metrics-port", "0", "--http-port", "free")
    code = main([*free, *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "; " in lines[0]
    return code, lines[0]


def test_a_missing_checkpoint_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, ports_file = threading.active_count(), tmp_path / "ports.json"
    code, line = told(capsys, "--model", "file:///no/such/model", "--ports-file", str(ports_file))
    assert code == 2
    assert line.startswith("error: file:///no/such/model: ")
    assert not ports_file.exists()
    assert threading.active_count() <= before + 1  # gRPC's own poller stays with the process


def test_heads_of_another_backbone(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_checkpoint(tmp_path / "other", layers=LAYERS, seed=3)
    bundle = noise_bundle(tmp_path / "heads", other, EXITS)
    code, line = told(capsys, "--model", f"file://{tiny}", "--exits", f"file://{bundle}", *MEMORY)
    assert code == 2
    assert "fingerprint" in line


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layer_budget": LAYERS + 1}, "limits.layer_budget"),
        ({"layer_budget": 3}, "limits.layer_budget"),
        ({"exit_layers": (LAYERS + 3,)}, "limits.exit_layers"),
    ],
)
def test_a_budget_that_the_model_has_not(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], field: str
) -> None:
    code, line = told(capsys, "--limits", str(limits_file(tmp_path, tiny, **changes)))
    assert code == 2
    assert line.startswith(f"error: {field}: ")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"generation": 1, "candidate": "x", "modelUri": "", "layers": 3}', "limits.model_uri"),
        ('{"generation": 1, "candidate": "x", "modelUri": "y", "audit": 3}', "limits.audit"),
        ('{"generation": 1, "candidate": "x", "modelUri": "y", "layerBudget": "all"}', "limits.layerBudget"),
        ("{", "limits"),
        ("{}", "limits.candidate"),
        (
            '{"generation": 1, "candidate": "x", "modelUri": "y", "exitMode": "x"}',
            "limits.exit_mode",
        ),
    ],
)
def test_limits_that_are_no_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, field: str
) -> None:
    file = tmp_path / "limits.json"
    file.write_text(text)
    code, line = told(capsys, "--limits", str(file))
    assert code == 2
    assert line.startswith(f"error: {field}: ")


def test_what_a_newer_operator_wrote_is_named_once_and_ignored(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = limits_file(tmp_path, tiny)
    newer = json.loads(file.read_text()) | {"speculation": {"tokens": 4}}
    file.write_text(json.dumps(newer))
    assert parse(["--limits", str(file)]).limits.model_uri == f"file://{tiny}"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "speculation.tokens: not known to this release" in line


def test_a_limits_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "--limits", "/no/limits.json")[0] == 2


@pytest.mark.parametrize("argument", ["port", "control-port", "metrics-port", "http-port"])
def test_a_port_in_use_is_named_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = told(capsys, "--model", "file:///not/looked/at", f"--{argument}", port)
    assert code == 2
    assert line.startswith(f"error: {argument}: 127.0.0.1:{port} ")


def test_no_memory_for_one_request(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(capsys, "--model", f"file://{tiny}", "--memory-mib", "1")
    assert code == 3
    assert line.startswith("error: limits.memory_mib: ")


def test_control_without_a_token_stays_on_this_machine(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = told(capsys, "--model", f"file://{tiny}", "--host", "0.0.0.0")
    assert code == 2
    assert line.startswith("error: control-token-file: ")


def test_a_ports_file_that_cannot_be_written(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(capsys, "--model", f"file://{tiny}", "--ports-file", "/no/such/folder/ports.json")
    assert code == 2
    assert line.startswith("error: ports-file: ")


def test_a_budget_above_the_depth_stand_alone(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(capsys, "--model", f"file://{tiny}", "--layer-budget", "9")
    assert (code, line.partition(": ")[2].partition(": ")[0]) == (2, "limits.layer_budget")


def test_stand_alone_arguments_become_limits() -> None:
    config = parse(["--model", "hf://org/chat-1b/", "--layer-budget", "24", "--memory-mib", "900"])
    assert config.engine.max_context is None
    limits = config.limits
    assert (config.model_name, limits.candidate, limits.model_uri) == (
        "chat-1b",
        "chat-1b",
        "hf://org/chat-1b/",
    )
    assert (limits.layer_budget, limits.exit_layers, limits.memory_mib) == (24, (24,), 900)


@pytest.mark.parametrize(("given", "on"), [((), True), (("on",), True), (("off",), False)])
def test_prefix_caching_is_on_unless_it_is_turned_off(given: tuple[str, ...], on: bool) -> None:
    flag = ("--prefix-caching", *given) if given else ()
    assert parse(["--model", "file:///m", *flag]).engine.prefix_caching is on


@pytest.mark.parametrize("word", ["", "true", "0", "On"])
def test_prefix_caching_is_on_or_off(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--model", "file:///m", "--prefix-caching", word])
    assert ended.value.code == 2
    assert "--prefix-caching: invalid choice" in capsys.readouterr().err


def test_stand_alone_exit_layers_are_the_bundles(tiny: Path, heads: Path) -> None:
    bundle = ["--model", f"file://{tiny}", "--exits", f"file://{heads}"]
    assert parse(bundle).limits.exit_layers == EXITS
    assert parse([*bundle, "--exit-layers", "2"]).limits.exit_layers == (2,)
