"""`helios tune MODEL TEXT...`: trains exit heads for a checkpoint from text files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helios_server.models.cache import cache_root

from helios_cli.arguments import Parser
from helios_cli.output import columns

if TYPE_CHECKING:
    from helios_server.exits.bundle import HeadBundle

_DEFAULT_SECONDS = 600.0


def run(argv: Sequence[str]) -> int:
    parser = Parser("tune", "Train exit heads for a checkpoint from text files.")
    parser.add_argument("model", metavar="MODEL", help="file:///path, pvc://claim/path or hf://org/name")
    parser.add_argument(
        "texts", metavar="TEXT", type=Path, nargs="+", help="a file of text like your traffic"
    )
    parser.add_argument(
        "--layers",
        type=_layers,
        default=None,
        metavar="I,J",
        help="depths to train a head for; auto: 80 and 90 per cent of the layers (default: auto)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory of the bundle")
    parser.add_argument(
        "--kind", choices=("affine", "mlp"), default="mlp", help="affine: ridge; mlp: KL (default)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"training time, without reading and measuring (default: {_DEFAULT_SECONDS:.0f})",
    )
    length.add_argument("--steps", type=int, metavar="N", help="per exit, instead of seconds")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--tokens", type=int, default=200_000, metavar="N", help="tokens read from each text")
    parser.add_argument("--revision", help="revision of the model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--volumes",
        type=Path,
        default=cache_root(),
        metavar="DIR",
        help="folder in which pvc://claim is a folder",
    )
    options = parser.parse_args(argv)

    from helios_server.exits.measured import warnings
    from helios_server.exits.tuning import proposed_layers, tune
    from helios_server.models.checkpoint import Checkpoint
    from helios_server.models.store import resolve
    from helios_server.progress import Progress

    progress = Progress()
    model = resolve(options.model, options.revision, volumes=options.volumes)
    seconds = None if options.steps else options.seconds or _DEFAULT_SECONDS
    checkpoint = Checkpoint.open(model.path)
    depth = checkpoint.config.num_layers
    layers = options.layers or proposed_layers(depth)
    progress(f"heads after {' and '.join(map(str, layers))} of {depth} layers")
    bundle = tune(
        checkpoint,
        options.texts,
        layers=layers,
        kind=options.kind,
        out=options.out,
        seconds=seconds if options.kind == "mlp" else None,
        steps=options.steps if options.kind == "mlp" else None,
        seed=options.seed,
        tokens=options.tokens,
        device=options.device,
        progress=progress,
    )
    print(f"{_table(bundle, depth)}\n")
    for warning in warnings(bundle):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{options.out}  {bundle.digest}")
    return 0


def _table(bundle: HeadBundle, depth: int) -> str:
    """Held-out text, exit by exit, beside full depth."""
    from helios_server.exits.measured import measured

    rows = [
        (
            row.text,
            f"{row.layer} of {depth}",
            f"{row.quality_percent:.1f} %",
            f"{row.bits_per_byte:.3f}",
            f"{100 * row.agreement:.0f} %",
            None if row.ece is None else f"{row.ece:.3f}",
        )
        for row in measured(bundle, depth)
    ]
    return columns(("TEXT", "LAYERS", "QUALITY", "BITS/BYTE", "AGREEMENT", "CALIBRATION ERROR"), rows)


def _layers(text: str) -> tuple[int, ...] | None:
    if text == "auto":
        return None
    return tuple(sorted({int(layer) for layer in text.split(",")}))
