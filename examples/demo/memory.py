"""`python -m examples.demo.memory URI`: the memory limit in MiB under which full depth holds a given
number of rows.

Run as a process of its own, with the serving process's imports, because what a process holds at its
start is part of the answer. It loads the model as the server does and asks the memory law, read
backwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import helios_server.serve  # noqa: F401  (what the serving process imports, so that both hold the same at start)
from helios_contract.limits import Audit, Limits
from helios_contract.serves import Bundle
from helios_server.engine.limits import EngineConfig
from helios_server.engine.serving import load_model
from helios_server.planning.memory import limit_mib_for_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--exits", default=[], action="append", help="bundles that audits score side by side")
    parser.add_argument("--volumes", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--unaudited", action="store_true", help="no prompt is drawn for an audit")
    parser.add_argument("--tokens", type=int, required=True, help="per request, prompt and output")
    arguments = parser.parse_args()
    bundles = tuple(Bundle(uri, uri, "") for uri in arguments.exits)
    limits = Limits(
        generation=1,
        candidate="any",
        model_uri=arguments.uri,
        audit=Audit(percent=0 if arguments.unaudited else 1, bundles=bundles),
        tokens_per_request=arguments.tokens,
    )
    loaded = load_model(EngineConfig(device=arguments.device, volumes=arguments.volumes), limits)
    limit = limit_mib_for_rows(
        loaded.model.facts,
        layers=loaded.model.config.num_layers,
        rows=arguments.rows,
        tokens_per_request=arguments.tokens,
        exit_bytes=loaded.heads.nbytes,
        audit_bytes=0 if arguments.unaudited else loaded.model.audit_bytes,
    )
    print(limit)


if __name__ == "__main__":
    main()
