"""Real pods for the tests of the doors: the whole server in this process, or as a child, on a tiny model."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web_app
from helios_contract.limits import Limits
from helios_proto.client import GenerationClient
from helios_proto.v1 import control_pb2, control_pb2_grpc
from helios_proto.v1 import generation_pb2 as pb
from helios_server.engine.limits import EngineConfig
from helios_server.rpc.auth import Token
from helios_server.rpc.request_log import RequestLog
from helios_server.rpc.server import Access, PodServer, Ports
from helios_server.telemetry.tracing import Tracing

PROMPT = "A prompt of the tests"
EXITS = (2, 4)
LAYERS = 6
FREE = Ports(0, 0, 0, 0)
OPEN = Access()


def limits_for(model: Path, **changes: Any) -> Limits:
    """Limits of a small pod that serves `model`."""
    settings: dict[str, Any] = {
        "generation": 1,
        "candidate": "tiny",
        "model_uri": f"file://{model}",
        "memory_mib": 4096,
        "max_batch_size": 8,
        "max_queue_size": 16,
        "exit_layers": EXITS,
        "tokens_per_request": 64,
    }
    return Limits(**settings | changes)


@dataclass
class Served:
    """A pod that serves: how to speak to it. `server` is None for a child process."""

    ports: Ports
    client: GenerationClient
    control: control_pb2_grpc.ControlStub
    server: PodServer | None = None
    running: list[asyncio.Task[Any]] = field(default_factory=list)

    async def generate(self, text: str = PROMPT, **request: Any) -> pb.Complete:
        """The whole answer; sampling parameters by their names, request fields as well."""
        return await self.client.generate(generate_request(text, **request)).complete()

    async def telemetry(self) -> control_pb2.Telemetry:
        return await self.control.GetTelemetry(control_pb2.GetTelemetryRequest())

    async def load(self) -> pb.GetLoadResponse:
        return await self.client.stub.GetLoad(pb.GetLoadRequest())

    async def info(self) -> pb.GetModelInfoResponse:
        return await self.client.stub.GetModelInfo(pb.GetModelInfoRequest())

    async def set_limits(self, **changes: Any) -> control_pb2.SetLimitsResponse:
        """The limits in force with some changes, and the next generation unless another is given."""
        current = (await self.control.GetLimits(control_pb2.GetLimitsRequest())).limits
        current.generation += 1
        for name, value in changes.items():
            set_field(current, name, value)
        return await self.control.SetLimits(control_pb2.SetLimitsRequest(limits=current))

    async def page(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP page."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports.metrics_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split(" ")[1]), body


def set_field(message: Any, name: str, value: Any) -> None:
    """Sets a scalar, a message or a whole repeated field."""
    if isinstance(value, list | tuple):
        message.ClearField(name)
        getattr(message, name).extend(value)
    elif isinstance(getattr(message, name), int | float | str | bool):
        setattr(message, name, value)
    else:
        getattr(message, name).CopyFrom(value)


def generate_request(text: str = PROMPT, **fields: Any) -> pb.GenerateRequest:
    """A request; what is no field of it is a sampling parameter. Greedy, 8 tokens, end-of-sequence
    ignored."""
    own = {name for name in pb.GenerateRequest.DESCRIPTOR.fields_by_name}
    sampling = {"max_tokens": 8, "ignore_eos": True} | {k: v for k, v in fields.items() if k not in own}
    given = {name: value for name, value in fields.items() if name in own}
    if not given.keys() & {"tokenized", "chat"}:
        given["text"] = text
    return pb.GenerateRequest(sampling_params=pb.SamplingParams(**sampling), **given)


async def eventually(condition: Any, patience: float = 180.0) -> None:
    """Waits until an async condition holds; the patience only bounds a failure."""
    async with asyncio.timeout(patience):
        while not await condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(
    model: Path,
    token: Path | None = None,
    energy: Any = None,
    load: bool = True,
    access: Access = OPEN,
    engine: dict[str, Any] | None = None,
    tracing: Tracing | None = None,
    drain_timeout: float = 60,
    host: str = "127.0.0.1",
    at: Ports = FREE,
    request_log: RequestLog | None = None,
    tasks_file: Path | None = None,
    **changes: Any,
) -> AsyncIterator[Served]:
    """A pod in this process. engine: of its EngineConfig; drain_timeout: seconds; host, at: where it listens;
    changes: of its limits."""
    config = EngineConfig(**{"dtype": "float64", "threads": 1, "step_tokens": 32} | (engine or {}))
    guard = Token(token) if token else None
    limits = limits_for(model, **changes)
    server = PodServer(
        "chat", config, limits, guard, energy, drain_timeout,
        access=access, tracing=tracing, request_log=request_log, tasks_file=tasks_file,
    )  # fmt: skip
    ports = await server.open(host, at)
    try:
        if load:
            await server.load()
        async with speaking(ports, host) as served:
            served.server = server
            yield served
    finally:
        await server.close()
        _forget_handlers()


def _forget_handlers() -> None:
    """aiohttp keeps a thousand of them for its process, with what they belong to: pods of 15 MiB each."""
    web_app._cached_build_middleware.cache_clear()


@asynccontextmanager
async def speaking(ports: Ports, host: str = "127.0.0.1") -> AsyncIterator[Served]:
    """Clients of a pod's doors."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(GenerationClient(f"{host}:{ports.port}"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"{host}:{ports.control_port}"))
        yield Served(ports, client, control_pb2_grpc.ControlStub(channel))


class Child:
    """`python -m helios_server.serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, ports_file: Path) -> None:
        self.process = process
        self._ports_file = ports_file

    async def ports(self) -> Ports:
        async def written() -> bool:
            if self.process.returncode is not None:
                raise AssertionError((await self.end())[1])
            return self._ports_file.exists()

        await eventually(written, 180)
        return Ports(**json.loads(self._ports_file.read_text()))

    async def end(self, patience: float = 180) -> tuple[int, str]:
        """Exit code and standard error."""
        _, errors = await asyncio.wait_for(self.process.communicate(), patience)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def child(
    folder: Path,
    *arguments: str,
    ports: Sequence[int] = (0, 0, 0),
    module: str = "helios_server.serve",
) -> AsyncIterator[Child]:
    """A serving process; killed at the end should it still run."""
    ports_file = folder / "ports.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        *("--port", str(ports[0]), "--control-port", str(ports[1]), "--metrics-port", str(ports[2])),
        *("--http-port", "free"),
        *("--ports-file", str(ports_file), "--dtype", "float64", "--threads", "1"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process, ports_file)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
