"""`helios up FILE`: serves on this machine what FILE asks for, says what it does, and ends without a trace
of it.

It prints what the runtime's log says; it decides nothing, except to give up when nothing serves and nothing
can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from helios_operator.api import documents, validation
from helios_operator.api.cluster_fields import unused_locally
from helios_operator.api.reasons import Reason
from helios_operator.errors import OperatorError
from helios_operator.local.events import WARNING, Echoes, Record
from helios_operator.local.runtime import LocalRuntime, Options
from helios_operator.local.store import CONFIG_MAP, DEPLOYMENT
from helios_operator.render.commands import Access
from helios_proto import addresses
from helios_server.models.cache import cache_root
from rich.console import Console
from rich.markup import escape

from helios_cli import extras, state
from helios_cli.arguments import Parser

_NO_HTTP = -1
_ID = re.compile(r"\b[a-z]-[0-9a-f]{12}\b")
"""Of a Job: its kind's letter, and the hash of what it measures."""
_NEXT: dict[str, str] = {
    Reason.MINIMUM_REPLICAS_SERVING: 'helios generate "Call me Ishmael." --name {name} --max-tokens 40',
    Reason.WAITING_FOR_PROMPTS: 'send prompts: helios generate "..." --name {name}, or any client',
    Reason.ALL_CANDIDATES_CURRENT: "helios why {name}",
}
"""What a person may do once that is said."""
_STYLES = {"decision": "bold cyan", "event": "bold", "pod": "dim", "job": "dim", "runtime": "red"}


def run(argv: Sequence[str]) -> int:
    parser = Parser("up", "Serve on this machine what FILE asks for.")
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="YAML: HeliosDeployments, HeliosModels, ConfigMaps"
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help=f"kept between runs (default: {state.root()}/NAME)"
    )
    parser.add_argument(
        "--volumes", type=Path, default=cache_root(), metavar="DIR", help="pvc://claim/path is DIR/claim/path"
    )
    parser.add_argument(
        "--port",
        type=int,
        metavar="N",
        help="port of the front address (default: the service's; 0: a free one)",
    )
    parser.add_argument(
        "--http-port",
        type=_http_port,
        metavar="N",
        help="the same for OpenAI's API (0: none; free: a free one)",
    )
    parser.add_argument(
        "--host", default=addresses.loopback(), metavar="ADDRESS", help="where the front addresses listen"
    )
    parser.add_argument(
        "--memory-mib", type=int, metavar="N", help="memory for all pods together (default: the machine's)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="default: the device's"
    )
    parser.add_argument(
        "--watts", type=float, metavar="W", help="power of the processor, if it has no counter"
    )
    _add_access(parser)
    options = parser.parse_args(argv)
    extras.check("up")  # pods and Jobs are processes that would end as soon as they begin
    objects = _read(options.file)
    folder = options.state or _default_state(objects)
    runtime = LocalRuntime(objects, folder, _options(options, folder), Screen().show)
    return asyncio.run(_serve(runtime))


def _add_access(parser: Parser) -> None:
    """Of files that pods read, and read again when they change; the front addresses pass bytes on."""
    for option, metavar, what in (
        ("--tls-cert", "FILE", "use TLS with this certificate, in PEM"),
        ("--tls-key", "FILE", "private key of --tls-cert, in PEM"),
        ("--tls-client-ca", "FILE", "clients need a certificate of these CAs, in PEM"),
        ("--auth-tokens", "DIR", "a file for each caller, with its bearer token"),
    ):
        parser.add_argument(option, type=Path, metavar=metavar, help=what)


def _access(options: Any) -> Access:
    """As pods are told, wherever they run. OperatorError for half of a pair, and for what is not there."""
    given = {name: getattr(options, name) for name in ("tls_cert", "tls_key", "tls_client_ca", "auth_tokens")}
    for name, path in given.items():
        if path is not None and not path.exists():
            raise OperatorError(name.replace("_", "-"), f"there is no {path}", "give an existing path")
    if (given["tls_cert"] is None) != (given["tls_key"] is None):
        missing = "tls-key" if given["tls_key"] is None else "tls-cert"
        raise OperatorError(missing, "is missing", "give the certificate and its key")
    return Access(**{name: str(path.absolute()) if path else "" for name, path in given.items()})


def _http_port(text: str) -> int:
    """0: a free one, as elsewhere; what a person writes as 0 is none."""
    return 0 if text == "free" else int(text) or _NO_HTTP


def _options(options: Any, folder: Path) -> Options:
    return Options(
        volumes=options.volumes,
        device=options.device,
        dtype=options.dtype,
        memory_mib=options.memory_mib,
        watts=options.watts,
        host=options.host,
        port=options.port,
        http=options.http_port != _NO_HTTP,
        http_port=None if options.http_port == _NO_HTTP else options.http_port,
        command=f"helios up {options.file}",
        access=_access(options),
        neighbours=tuple(each for each in state.folders() if each.resolve() != folder.resolve()),
    )


def _read(file: Path) -> list[dict[str, Any]]:
    """The objects as they stand in the file; what will be ignored is said."""
    objects = documents.read(file)
    for obj in objects:
        if isinstance(obj, dict) and obj.get("kind") == CONFIG_MAP:
            continue
        for warning in [*validation.warnings(obj), *unused_locally(obj)]:
            _tell(f"warning: {warning}", sys.stderr)
    return objects


def _default_state(objects: Sequence[dict[str, Any]]) -> Path:
    names = [o.get("metadata", {}).get("name") for o in objects if o.get("kind") == DEPLOYMENT]
    if not names:
        raise OperatorError("FILE", f"holds no {DEPLOYMENT}", "add one: see examples/")
    return state.root() / str(names[0])


async def _serve(runtime: LocalRuntime) -> int:
    """Until Ctrl-C or SIGTERM; a second one cuts the streams that still run."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            runtime.kill()
            return
        stopping.set()
        _tell("\nstopping: running streams may finish; Ctrl-C again stops them", sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    async with runtime:
        for name in runtime.names:
            _tell(f"{name}: {runtime.front_address(name)}")
            if http := runtime.http_address(name):
                _tell(f"{name}: {'https' if runtime.encrypted(name) else 'http'}://{http}")
        hopeless = asyncio.create_task(_nothing_can_serve(runtime))
        await asyncio.wait(
            [hopeless, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        hopeless.cancel()
    if not stopping.is_set():
        for line in hopeless.result():
            _tell(f"error: {line}", sys.stderr)
        return 2
    return 0


def _tell(line: str, stream: TextIO | None = None) -> None:
    """stream: None for standard output."""
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except OSError:  # the reader has gone, or its terminal; we serve on
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def _nothing_can_serve(runtime: LocalRuntime) -> list[str]:
    """Waits for the case that no deployment has served and none can: the reasons, one line each."""
    await runtime.wait_for(lambda now: all(now.hopeless(name) for name in now.names), timeout=None)
    return [line for name in runtime.names for line in runtime.hopeless(name)]


class Screen:
    """Prints records as lines: time, what it is about, the reason, the message, ids; and once each, what one
    may do next."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._echoes = Echoes()
        self._told: set[tuple[str, str]] = set()

    def show(self, record: Record) -> None:
        if self._echoes.is_echo(record):
            return
        time = datetime.fromisoformat(record.time).astimezone().strftime("%H:%M:%S")
        style = "yellow" if record.type == WARNING else _STYLES[record.source]
        about, ids = _without_ids(record)
        head = escape(f"{about}: {record.reason}" if about else record.reason)
        tail = escape(f"{record.message}  ({ids})" if ids else record.message)
        with contextlib.suppress(OSError, SystemExit):  # rich's answer to a reader that has gone; we serve on
            self._console.print(f"{time}  [{style}]{head}[/]  {tail}")
            if command := self._next(record):
                self._console.print(f"          [green]next[/]  {escape(command)}")

    def _next(self, record: Record) -> str:
        """ "" where nothing new can be done."""
        told = (record.deployment, record.reason)
        if told in self._told or record.reason not in _NEXT:
            return ""
        self._told.add(told)
        return _NEXT[record.reason].format(name=record.deployment)


def _without_ids(record: Record) -> tuple[str, str]:
    """What a record is about, and the ids of it: of Jobs, and the names of pods and Jobs that speak."""
    if record.source in ("pod", "job"):
        return "", record.about
    ids = _ID.findall(record.about)
    return " ".join(_ID.sub("", record.about).split()), ", ".join(i for i in ids if i not in record.message)
