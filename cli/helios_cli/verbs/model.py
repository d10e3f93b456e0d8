"""`helios model NAME`: prints the directory of a model, fetching it first if need be; puts it into a
folder, such as a claim's; makes shallower copies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from helios_server.models.cache import cache_root

from helios_cli.arguments import Parser

_BUILT_IN = "smollm2-135m"


def run(argv: Sequence[str]) -> int:
    parser = Parser("model", "Print the directory of a model; download it first if needed.")
    parser.add_argument(
        "name", metavar="NAME", help=f"{_BUILT_IN}, or a uri: file:///path, pvc://claim/path, hf://org/name"
    )
    parser.add_argument("--revision", help="revision of an hf:// model: commit, branch or tag")
    parser.add_argument(
        "--volumes",
        type=Path,
        default=cache_root(),
        metavar="DIR",
        help="folder in which pvc://claim is a folder",
    )
    parser.add_argument(
        "--drop-layers",
        type=_layers,
        metavar="I,J",
        help="make a copy without these decoder layers (from 0), print that",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="put the model there, whole or not at all; with --drop-layers that copy (default: beside it)",
    )
    options = parser.parse_args(argv)
    if options.out and not options.drop_layers:
        from helios_server.models.placing import place

        found = place(
            options.name, options.out, options.revision, volumes=options.volumes, progress=_progress
        )
        print(found)
        return 0
    directory = _find(options.name, options.revision, options.volumes)
    if options.drop_layers:
        directory = _shallower(directory, options.drop_layers, options.out)
    print(directory)
    return 0


def _find(name: str, revision: str | None, volumes: Path) -> Path:
    from helios_server.models import store

    if name == _BUILT_IN:
        return store.ensure_smollm2(progress=_progress)
    return store.resolve(name, revision, volumes=volumes).path


def _shallower(source: Path, layers: tuple[int, ...], out: Path | None) -> Path:
    from helios_server.models import store
    from helios_server.models.checkpoint import Checkpoint
    from helios_server.models.placing import refuse_what_is_not_ours

    if out:
        refuse_what_is_not_ours(out)
    kept = Checkpoint.open(source).config.num_layers - len(layers)
    target = out or source.with_name(f"{source.name}-{kept}")
    _progress(f"writing {kept} of the layers to {target}")
    return store.drop_layers(source, target, layers)


def _layers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(layer) for layer in text.split(",")}))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
