"""`helios operator`: the control loop of a cluster, as the chart runs it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from helios_operator.render import installation
from helios_proto import addresses

from helios_cli.arguments import Parser


def run(argv: Sequence[str]) -> int:
    from helios_operator import app
    from helios_operator.cluster.operator import Options

    parser = Parser("operator", "Run the operator of a cluster: by KUBECONFIG, or as the account of its pod.")
    installation.add_arguments(parser)
    add = parser.add_argument
    add("--watch-namespace", action="append", default=[], metavar="NAME", help="repeatable (default: all)")
    add(
        "--no-nodes",
        action="store_true",
        help="do not read nodes; whether a second pod fits is then unknown",
    )
    add("--http-host", default=addresses.ANY, metavar="ADDRESS", help="address of /healthz and /metrics")
    add("--http-port", type=int, default=8080, metavar="N")
    add(
        "--poll-seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="between passes over a deployment at rest",
    )
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    add("--log-format", default="text", choices=("text", "json"))
    options = parser.parse_args(argv)
    _log(options.log_level, options.log_format)
    settings = app.Settings(
        by=installation.installation(options),
        options=Options(
            namespaces=tuple(options.watch_namespace),
            nodes=not options.no_nodes,
            poll_seconds=options.poll_seconds,
        ),
        http_host=options.http_host,
        http_port=options.http_port,
    )
    asyncio.run(app.run(settings))
    return 0


def _log(level: str, form: str) -> None:
    """One line a record, on standard error; kopf's own chatter only when asked for."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_Json() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)


class _Json(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)
