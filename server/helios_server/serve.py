"""`helios serve`: one process that serves one model, until it is told to stop.

Called by the command and, through it, by whatever runs pods. It reads arguments and files, turns signals into
a drain and errors into one line and an exit code: 0 drained, 1 failed, 2 wrong input, 3 too little memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helios_contract.limits import Audit, Limits
from helios_contract.serves import SINGLE_TOKENS
from helios_proto import addresses

from helios_server.arguments import add_access_arguments, http_port, port, tokens
from helios_server.engine import host_memory
from helios_server.engine.exit_mode import MOST_ROWS, is_token
from helios_server.engine.limits import EngineConfig, check
from helios_server.errors import HeliosError, InvalidRequest, OutOfMemoryBudget
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.reading import reading
from helios_server.models.store import resolve
from helios_server.rpc import limits as limits_document
from helios_server.rpc.auth import Token
from helios_server.rpc.callers import CallerTokens
from helios_server.rpc.request_log import RequestLog
from helios_server.rpc.server import Access, PodServer, Ports
from helios_server.rpc.tls import Certificates, TlsFiles
from helios_server.telemetry.energy import open_meter
from helios_server.telemetry.tracing import open_tracing

logger = logging.getLogger("helios")

WRONG_INPUT, NO_MEMORY, FAILED = 2, 3, 1
_TASKS = "tasks.json"
"""Beside the limits file, where no other file is named."""
_SECOND_SIGNAL = 128 + signal.SIGTERM


@dataclass(frozen=True)
class ServeConfig:
    """All that a serving process is told. ports: 0 for a free one; drain_timeout: seconds; energy_watts: of
    one busy core, None where nothing is declared; ports_file: where the bound ports are written, as JSON;
    tls: None for clear text; auth_tokens: a folder with the callers' tokens, None for everybody; tasks_file:
    the user's tasks; otlp_endpoint: for spans, None for what the environment says; request_log: where lengths
    and audits are written, None for nowhere."""

    model_name: str
    engine: EngineConfig
    limits: Limits
    host: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    control_token_file: Path | None = None
    drain_timeout: float = 300.0
    ports_file: Path | None = None
    energy_watts: float | None = None
    tls: TlsFiles | None = None
    auth_tokens: Path | None = None
    reflection: bool = True
    tasks_file: Path | None = None
    otlp_endpoint: str | None = None
    request_log: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        return serve(parse(argv))
    except HeliosError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_MEMORY if isinstance(error, OutOfMemoryBudget) else WRONG_INPUT


def serve(config: ServeConfig) -> int:
    """Returns 0 when drained, 1 when the engine failed. HeliosError when it cannot start; nothing is left
    then."""
    host_memory.share_one_heap()
    _allow_open_files()
    return asyncio.run(_Process(config).run())


def _allow_open_files() -> None:
    """As many as the system allows: a connection takes three, and a shell's own limit is at some 300 of
    them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # no limit at all is refused by some systems
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# -- the process


class _Process:
    """One run. The first signal drains, the second ends the process on the spot."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._told_to_stop = asyncio.Event()

    async def run(self) -> int:
        config = self._config
        _check_reachable_by_token(config)
        token = Token(config.control_token_file) if config.control_token_file else None
        energy = open_meter(config.engine.device, config.energy_watts)
        access = Access(
            Certificates(config.tls) if config.tls else None,
            CallerTokens(config.auth_tokens, token) if config.auth_tokens else None,
            config.reflection,
        )
        server = PodServer(
            config.model_name,
            config.engine,
            config.limits,
            token,
            energy,
            config.drain_timeout,
            access,
            config.tasks_file,
            open_tracing(config.otlp_endpoint, config.model_name, os.environ),
            RequestLog(config.request_log) if config.request_log else None,
        )
        self._listen_to_signals()
        ports = await server.open(config.host, config.ports)
        try:
            self._publish(ports)
            return await self._serve(server)
        finally:
            await server.close()
            self._withdraw()

    async def _serve(self, server: PodServer) -> int:
        stop = asyncio.create_task(self._told_to_stop.wait())
        gc.collect()
        gc.freeze()  # what is imported stays; collections that look through it hold up every thread
        loading = asyncio.create_task(server.load())
        await asyncio.wait({stop, loading}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            logger.info("asked to stop while the model loads")
            self._exit_now(0)
        await loading
        watch = asyncio.create_task(server.watch())
        await asyncio.wait({stop, watch}, return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        logger.info("draining")
        await server.drain()
        return 0 if stop.done() else FAILED

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._told_to_stop.is_set():
            self._exit_now(_SECOND_SIGNAL)
        self._told_to_stop.set()

    def _exit_now(self, code: int) -> None:
        """Without waiting for threads: one of them may be reading a model."""
        self._withdraw()
        logging.shutdown()
        os._exit(code)

    def _publish(self, ports: Ports) -> None:
        addresses = asdict(ports)
        logger.info("listening on %s: %s", self._config.host, json.dumps(addresses))
        if self._config.ports_file:
            _write_atomically(self._config.ports_file, json.dumps(addresses) + "\n")

    def _withdraw(self) -> None:
        if self._config.ports_file:
            self._config.ports_file.unlink(missing_ok=True)


def _write_atomically(path: Path, text: str) -> None:
    try:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        raise InvalidRequest("ports-file", problem, "Give a file in a folder that exists") from None


def _check_reachable_by_token(config: ServeConfig) -> None:
    """Without a token, Control is for this machine only."""
    if config.control_token_file or addresses.is_loopback(config.host):
        return
    problem = f"is missing, and {config.host} can be reached from elsewhere"
    raise InvalidRequest(
        "control-token-file", problem, "Give a file with a token, or --host 127.0.0.1 or ::1"
    )


# -- the arguments


def parse(argv: Sequence[str] | None) -> ServeConfig:
    """HeliosError names the argument, or the field of the limits file, that is wrong."""
    options = _parser().parse_args(argv)
    limits = limits_document.read(options.limits) if options.limits else _stand_alone_limits(options)
    prefix_caching = options.prefix_caching or ("off" if is_token(limits) else "on")
    return ServeConfig(
        model_name=options.model_name or limits.candidate,
        engine=EngineConfig(
            device=options.device,
            dtype=options.dtype,
            threads=options.threads,
            max_context=options.max_context,
            volumes=options.volumes,
            offline=options.offline or None,
            max_queue_tokens=options.max_queue_tokens,
            prefix_caching=prefix_caching == "on",
        ),
        limits=limits,
        host=options.host,
        ports=Ports(options.port, options.control_port, options.metrics_port, options.http_port),
        control_token_file=options.control_token_file,
        drain_timeout=options.drain_timeout,
        ports_file=options.ports_file,
        energy_watts=options.energy_watts,
        tls=_tls(options),
        auth_tokens=options.auth_tokens,
        reflection=options.reflection,
        otlp_endpoint=options.otlp_endpoint,
        request_log=options.request_log,
        tasks_file=options.tasks_file or (options.limits.with_name(_TASKS) if options.limits else None),
    )


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    given = {"tls-cert": options.tls_cert, "tls-key": options.tls_key, "tls-client-ca": options.tls_client_ca}
    if not any(given.values()):
        return None
    for needed in ("tls-cert", "tls-key"):
        if not given[needed]:
            named = next(name for name, path in given.items() if path)
            raise InvalidRequest(
                needed, f"is missing, and --{named} is given", "Give the certificate and its key"
            )
    return TlsFiles(options.tls_cert, options.tls_key, options.tls_client_ca)


def _stand_alone_limits(options: argparse.Namespace) -> Limits:
    """Limits for a server that no operator minds."""
    limits = Limits(
        generation=1,
        candidate=options.model_name or options.model.rstrip("/").rpartition("/")[2],
        model_uri=options.model,
        model_revision=options.revision,
        exits_uri=options.exits,
        layer_budget=options.layer_budget,
        exit_mode=options.exit_mode,
        exit_threshold=_exit_threshold(options),
        max_batch_size=options.max_batch_size or (MOST_ROWS if options.exit_mode == SINGLE_TOKENS else 0),
        memory_mib=options.memory_mib,
        max_queue_size=options.max_queue_size,
        exit_layers=_exit_layers(options),
        audit=Audit(percent=options.audit_percent),
        tokens_per_request=options.tokens_per_request,
    )
    check(limits)
    return limits


def _exit_threshold(options: argparse.Namespace) -> float:
    if options.exit_threshold is None and options.exit_mode == SINGLE_TOKENS:
        problem = f"is missing, and --exit-mode is {SINGLE_TOKENS}"
        raise InvalidRequest("exit-threshold", problem, "Give a confidence, 0 to 1; above 1 none exits early")
    return options.exit_threshold or 0.0


def _exit_layers(options: argparse.Namespace) -> tuple[int, ...]:
    """Those given, else those of the bundle, else the budget alone: the model's own head serves anywhere."""
    if options.exit_layers or not options.exits:
        return tuple(options.exit_layers or filter(None, [options.layer_budget]))
    offline = options.offline or None
    with reading(options.model):
        return _layers_of_bundle(options, offline)


def _layers_of_bundle(options: argparse.Namespace, offline: bool | None) -> tuple[int, ...]:
    model = resolve(options.model, options.revision or None, volumes=options.volumes, offline=offline)
    bundle = BundleRef(options.exits)
    checkpoint = Checkpoint.open(model.path, model.named)
    return open_bundle(bundle, checkpoint, volumes=options.volumes, offline=offline).layers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="helios serve", description="Serve one model over gRPC and OpenAI's HTTP API."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--limits", type=Path, help="limits.json, as the operator writes it")
    what.add_argument("--model", help="file:///path, pvc://claim/path or hf://org/name, to serve on its own")
    _add_model_arguments(parser.add_argument_group("with --model"))
    parser.add_argument("--model-name", help="name for clients (default: the candidate's name)")
    parser.add_argument(
        "--host",
        default=addresses.loopback(),
        help="address to listen on; :: for all of both families (default: %(default)s)",
    )
    ports = Ports()
    parser.add_argument("--port", type=port, default=ports.port, help="gRPC for applications; 0: a free one")
    parser.add_argument("--control-port", type=port, default=ports.control_port, help="gRPC for the operator")
    parser.add_argument(
        "--metrics-port", type=port, default=ports.metrics_port, help="HTTP: probes, Prometheus"
    )
    parser.add_argument(
        "--http-port",
        type=http_port,
        default=ports.http_port,
        metavar="PORT",
        help="OpenAI's HTTP API for applications; 0: none, free: a free one (default: %(default)s)",
    )
    parser.add_argument("--ports-file", type=Path, help="write the bound ports here, as JSON")
    parser.add_argument(
        "--tasks-file", type=Path, help="tasks for the task probe of the limits: see docs/tasks.md"
    )
    parser.add_argument(
        "--control-token-file", type=Path, help="file with the bearer token of the Control port"
    )
    add_access_arguments(parser.add_argument_group("who may call, and how"))
    parser.add_argument("--volumes", type=Path, help="folder in which pvc://claim is a folder")
    parser.add_argument("--offline", action="store_true", help="download nothing")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument("--dtype", help="auto (default), float16, bfloat16, float32 or float64")
    parser.add_argument(
        "--max-context", type=tokens, metavar="N", help="limit of prompt and output (default: the model's)"
    )
    parser.add_argument(
        "--max-queue-tokens",
        type=tokens,
        metavar="N",
        help="limit of prompt tokens in the queue (default: 8 times the KV cache)",
    )
    parser.add_argument(
        "--prefix-caching",
        choices=("on", "off"),
        help="reuse the KV cache of common prefixes (default: on, off with --exit-mode token)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--drain-timeout", type=float, default=300.0, help="seconds for streams to end")
    parser.add_argument("--otlp-endpoint", metavar="URL", help="send spans: http://COLLECTOR:4317")
    parser.add_argument("--request-log", type=Path, metavar="FILE", help="append lengths and audits, no text")
    parser.add_argument(
        "--energy-watts", type=float, help="power of one busy core, if nothing can be measured"
    )
    return parser


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    defaults = Limits(generation=1, candidate="", model_uri="-")
    group.add_argument("--revision", default="", help="revision of the model")
    group.add_argument("--exits", default="", help="exit-head bundle, for example builtin://general")
    group.add_argument("--exit-layers", type=int, nargs="*", default=[], help="depths without a bundle")
    group.add_argument(
        "--exit-mode",
        default=defaults.exit_mode,
        help="sequence, or token: each token exits where it is confident; slow, for comparison "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--exit-threshold",
        type=float,
        metavar="P",
        help="for --exit-mode token: confidence from which a token exits; 0: always; above 1: never",
    )
    group.add_argument("--layer-budget", type=int, default=0, help="layers to load (default: all)")
    group.add_argument(
        "--max-batch-size", type=int, default=0, help="requests that run at once (default: what fits)"
    )
    group.add_argument(
        "--memory-mib", type=int, default=0, help="memory of the process (default: the machine's)"
    )
    group.add_argument("--max-queue-size", type=int, default=defaults.max_queue_size, help="waiting requests")
    group.add_argument(
        "--tokens-per-request", type=int, default=defaults.tokens_per_request, help="prompt and output"
    )
    group.add_argument(
        "--audit-percent", type=int, default=0, help="percentage of requests whose prompt is scored"
    )


if __name__ == "__main__":
    sys.exit(main())
