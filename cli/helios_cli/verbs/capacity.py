"""`helios capacity MODEL --memory SIZE`: will it fit, at which depth and in which precision; by config.json
alone, before anything else is downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from helios_contract.serves import PRECISIONS, REFERENCE, Precision
from helios_operator.errors import OperatorError
from helios_server.models.cache import cache_root
from helios_server.models.config import ModelConfig
from helios_server.models.described import described
from helios_server.models.known import KNOWN
from helios_server.models.shapes import shape_of
from helios_server.planning.combinations import Combination, combinations
from helios_server.planning.shape import facts_of
from helios_server.profile.precisions import parse_precisions

from helios_cli.arguments import Parser
from helios_cli.output import columns, paragraph, show

_SHARES = (1.0, 0.9, 0.8, 0.6, 0.4)
"""Of the model's layers: the depths that are shown where none are named."""
_USUAL_TOKENS = 640
"""Of a request, prompt and output: what `helios profile` looks ahead for, too."""
_UNITS = {f"{prefix}iB": 1 << 10 * power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
_NOT_COUNTED = (
    "what a process holds besides the model (an accelerator's context: up to 1 GiB; a CPU about 300 MiB), a "
    "step's temporaries, exit heads and audits: --reserve keeps memory for them, helios profile measures them"
)
_GIB = 2**30


@dataclass(frozen=True)
class CombinationView(Combination):
    """`gain`: tokens against full depth as published, None where that holds none."""

    gain: float | None


@dataclass(frozen=True)
class CapacityView:
    """`memory_bytes`: of all accelerators together, `reserved_bytes` of it kept."""

    model: str
    layers: int
    max_context_tokens: int
    memory_bytes: int
    accelerators: int
    reserved_bytes: int
    tokens_per_request: int
    combinations: list[CombinationView]
    not_counted: str


def run(argv: Sequence[str]) -> int:
    parser = Parser("capacity", "Will it fit: tokens and requests by depth and precision.").with_output()
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"{', '.join(KNOWN)}; a folder; or a uri: of hf://org/name config.json alone is fetched",
    )
    parser.add_argument("--memory", metavar="SIZE", required=True, help="with a unit: 24GiB, 42.3GB, 900MiB")
    parser.add_argument(
        "--accelerators", metavar="N", default="1", help="accelerators that each have it (default: 1)"
    )
    parser.add_argument(
        "--reserve",
        metavar="SIZE",
        default="0MiB",
        help="of each, to keep free for what is not counted (default: 0)",
    )
    parser.add_argument("--isl", metavar="N", help="tokens of a prompt (default: 512)")
    parser.add_argument("--osl", metavar="N", help="tokens of an answer (default: 128)")
    parser.add_argument("--tokens-per-request", metavar="N", help="the two together, instead of them")
    parser.add_argument("--layers", metavar="K,K", help="depths (default: all, 9, 8, 6 and 4 tenths)")
    parser.add_argument("--precisions", metavar="W/KV,W/KV", help="of weights and KV cache")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw it: .svg, .png or .pdf")
    parser.add_argument("--revision", help="revision of an hf:// model: commit, branch or tag")
    parser.add_argument(
        "--volumes",
        type=Path,
        default=cache_root(),
        metavar="DIR",
        help="folder in which pvc://claim is a folder",
    )
    options = parser.parse_args(argv)
    accelerators = _whole("accelerators", options.accelerators)
    memory = _size("memory", options.memory)
    reserve = _size("reserve", options.reserve)
    if reserve >= memory:
        raise OperatorError("reserve", f"{options.reserve} leaves nothing of {options.memory}", "lower it")
    precisions = parse_precisions(options.precisions) if options.precisions else PRECISIONS
    config = described(options.model, options.revision, volumes=options.volumes)
    view = _view(
        options.model,
        config,
        accelerators * memory,
        accelerators,
        accelerators * reserve,
        _request(options.isl, options.osl, options.tokens_per_request, config.longest_context),
        _depths(options.layers, config.num_layers),
        precisions,
    )
    show(view, options.output, _table)
    if options.plot:
        from helios_cli.capacity_plot import draw  # matplotlib: not part of what the command needs

        draw(view, options.plot)
    return 0 if any(one.rows for one in view.combinations) else 1


def _view(
    model: str,
    config: ModelConfig,
    memory: int,
    accelerators: int,
    reserved: int,
    tokens: int,
    depths: Sequence[int],
    precisions: Sequence[Precision],
) -> CapacityView:
    shape = shape_of(config)
    facts = {precision: facts_of(shape, precision) for precision in dict.fromkeys((REFERENCE, *precisions))}
    asked = dict.fromkeys((config.num_layers, *depths))
    found = combinations(facts, limit_bytes=memory - reserved, depths=asked, tokens_per_request=tokens)
    full = found[0].tokens
    shown = [one for one in found if one.layers in depths and one.precision in precisions]
    return CapacityView(
        model=model,
        layers=config.num_layers,
        max_context_tokens=config.max_context,
        memory_bytes=memory,
        accelerators=accelerators,
        reserved_bytes=reserved,
        tokens_per_request=tokens,
        combinations=[
            CombinationView(**asdict(one), gain=round(one.tokens / full, 2) if full else None)
            for one in shown
        ],
        not_counted=_NOT_COUNTED,
    )


# -- what is asked -------------------------------------------------------------------------------------------


def _size(field: str, text: str) -> int:
    """Bytes of a size with a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = f"{match[2]}B" if match and re.fullmatch("[A-Za-z]i", match[2]) else match and match[2]
    factor = next((n for known, n in _UNITS.items() if unit and known.lower() == unit.lower()), None)
    if match is None or factor is None:
        problem = f"'{text}' has no unit" if match and not match[2] else f"'{text}' is no size"
        raise OperatorError(field, problem, f"write it with one of {', '.join(_UNITS)}, such as 24GiB")
    size = int(Fraction(match[1]) * factor)
    if field == "memory" and size < 1:
        raise OperatorError(field, f"'{text}' is nothing", "give what one accelerator or machine has")
    return size


def _whole(field: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text) < 1:
        raise OperatorError(field, f"'{text}' is no whole number above 0", "give one, such as 1")
    return int(text)


def _request(isl: str | None, osl: str | None, both: str | None, longest: int) -> int:
    """Tokens of a request."""
    if both is not None and (isl is not None or osl is not None):
        raise OperatorError("tokens-per-request", "is given beside --isl or --osl", "give one of the two")
    if both is None and isl is None and osl is None:
        return min(_USUAL_TOKENS, longest)
    tokens = (
        _whole("tokens-per-request", both)
        if both
        else _whole("isl", isl or "512") + _whole("osl", osl or "128")
    )
    if tokens > longest:
        problem = f"{tokens} tokens of a request are above the model's context of {longest}"
        raise OperatorError("tokens-per-request", problem, "lower it, or --isl and --osl")
    return tokens


def _depths(text: str | None, full: int) -> tuple[int, ...]:
    """Deepest first."""
    if text is None:
        return tuple(dict.fromkeys(max(1, round(share * full)) for share in _SHARES))
    depths = {_whole("layers", part) for part in text.split(",")}
    if max(depths) > full:
        raise OperatorError(
            "layers", f"{max(depths)} is above the model's depth of {full}", f"use 1 to {full}"
        )
    return tuple(sorted(depths, reverse=True))


# -- the table -----------------------------------------------------------------------------------------------


def _table(view: CapacityView) -> None:
    each = f", {view.accelerators} accelerators together" if view.accelerators > 1 else ""
    kept = f", {_gib(view.reserved_bytes)} of it kept free" if view.reserved_bytes else ""
    print(f"{view.model}, {view.layers} layers, in {_gib(view.memory_bytes)}{each}{kept}")
    print(f"requests of {view.tokens_per_request} tokens; gain: tokens against full depth as published\n")
    titles = ("LAYERS", "WEIGHTS", "KV", "WEIGHTS TAKE", "KIB A TOKEN", "TOKENS", "BATCH", "GAIN", "LACKS")
    print(columns(titles, [_row(one) for one in view.combinations]))
    print("\n" + paragraph(f"Not counted: {view.not_counted}."))
    if view.accelerators > 1:
        print(paragraph("HELIOS serves a model from one accelerator; several are only for this calculation."))


def _row(one: CombinationView) -> list[object]:
    lacks = _gib(one.missing_bytes) if one.missing_bytes else None
    gain = f"{one.gain:.2f}x" if one.gain is not None and one.rows else None
    return [
        one.layers, one.weight_dtype, one.kv_cache_dtype, _gib(one.weight_bytes),
        f"{one.kv_bytes_per_token / 1024:.1f}", one.tokens or None, one.rows or None, gain, lacks,
    ]  # fmt: skip


def _gib(nbytes: int) -> str:
    return f"{nbytes / _GIB:.1f} GiB" if nbytes >= _GIB else f"{nbytes / 2**20:.1f} MiB"
