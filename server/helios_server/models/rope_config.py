"""What config.json says of the rotary embedding, read as transformers reads it.

Called by `config.py`. There are two spellings: `rope_scaling` beside `rope_theta`, and transformers 5's
`rope_parameters`, which holds both. Where both stand, `rope_scaling` is the one that counts. It must not
import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.errors import UnsupportedModelError
from helios_server.models.json_file import number, refuse, shown, whole

DEFAULT_THETA = 10_000.0
_SPELLINGS = ("rope_scaling", "rope_parameters")
_KINDS = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Frequency scaling of the rotary embedding. kind: `linear` or `llama3`; the rest are the formula's
    factors.

    original_max_context: tokens; low/high_freq_factor and original_max_context are used by `llama3` only.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_context: int = 8192


def read_rope(config: Mapping[str, Any], trained: int) -> tuple[float, RopeScaling | None]:
    """The base of the frequencies and their scaling. trained: max_position_embeddings, in tokens."""
    kinds = {name: _kind(name, parameters) for name in _SPELLINGS if (parameters := _object(config, name))}
    name = next(iter(kinds), "rope_parameters")
    parameters = _object(config, name)
    holder = parameters if "rope_theta" in parameters else config
    theta = number(holder, "rope_theta", DEFAULT_THETA, f"{name}." if holder is parameters else "")
    _check_whole_head(config, parameters)
    kind = kinds.get(name, "default")
    if kind == "default":
        return theta, None
    factor = number(parameters, "factor", within=f"{name}.")
    return theta, RopeScaling(kind, factor) if kind == "linear" else _llama3(config, name, trained)


def _llama3(config: Mapping[str, Any], name: str, trained: int) -> RopeScaling:
    parameters, within = _object(config, name), f"{name}."
    low = number(parameters, "low_freq_factor", within=within)
    high = number(parameters, "high_freq_factor", within=within)
    if high <= low:
        raise refuse(f"{within}high_freq_factor", f"expected more than low_freq_factor {low}, found {high}")
    original = "original_max_position_embeddings"
    outside = whole(config, original, whole(parameters, original, trained))
    return RopeScaling("llama3", number(parameters, "factor", within=within), low, high, outside)


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The parameters in one spelling; none when it is absent, null or empty."""
    parameters = config.get(name) or {}
    if not isinstance(parameters, dict):
        raise refuse(name, f"expected an object, found {shown(parameters)}")
    nested = [key for key, value in parameters.items() if isinstance(value, dict)]
    if nested:
        raise refuse(f"{name}.{nested[0]}", "parameters by layer type are not supported, expected one set")
    return parameters


def _kind(name: str, parameters: Mapping[str, Any]) -> str:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in _KINDS:
        raise UnsupportedModelError(
            f"{name}.{'rope_type' if 'rope_type' in parameters else 'type'}",
            f"{shown(kind)} is not supported",
            f"Use a model with {', '.join(_KINDS[:-1])} or {_KINDS[-1]} rope",
        )
    return str(kind)


def _check_whole_head(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Of each head every element is rotated."""
    name = "partial_rotary_factor"
    for fields in (parameters, config):
        if fields.get(name) is not None and number(fields, name) != 1.0:
            raise refuse(name, f"{shown(fields[name])} is not supported, only 1.0")
