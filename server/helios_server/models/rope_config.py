"""What config.json says of the rotary embedding, read as transformers reads it.

Called by `config.py`. There are two spellings: `rope_scaling` beside `rope_theta`, and transformers 5's
`rope_parameters`, which holds both. Where both stand, `rope_scaling` is the one that counts. Gemma 3 has two
bases, for full and for sliding layers. It must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.errors import UnsupportedModelError
from helios_server.models.json_file import number, refuse, shown, whole

DEFAULT_THETA = 10_000.0
_FULL_THETA, _SLIDING_THETA = 1_000_000.0, 10_000.0  # of a model whose layers differ
_SPELLINGS = ("rope_scaling", "rope_parameters")
_BY_LAYER = ("full_attention", "sliding_attention")
_KINDS = ("default", "linear", "llama3")
_ORIGINAL = "original_max_position_embeddings"


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


@dataclass(frozen=True, slots=True)
class RopeBase:
    """Frequencies by which heads are turned. theta: their base."""

    theta: float
    scaling: RopeScaling | None


def read_rope(config: Mapping[str, Any], trained: int) -> RopeBase:
    """The base of all layers. trained: max_position_embeddings, in tokens."""
    kinds = {name: _kind(name, parameters) for name in _SPELLINGS if (parameters := _object(config, name))}
    name = next(iter(kinds), "rope_parameters")
    parameters = _object(config, name)
    _check_whole_head(config, parameters)
    theta = _theta(parameters, name, number(config, "rope_theta", DEFAULT_THETA))
    return RopeBase(theta, _scaling(parameters, name, trained, outside=config))


def read_rope_by_layer(config: Mapping[str, Any], trained: int) -> tuple[RopeBase, RopeBase]:
    """The bases of full and of sliding layers: a set of parameters each in `rope_parameters`, or fields of
    config.json. `rope_scaling` is of full layers, and counts before what stands in their set."""
    sets = config.get("rope_parameters") or {}
    if not isinstance(sets, dict) or not sets.keys() <= set(_BY_LAYER):
        raise refuse("rope_parameters", f"expected {' and '.join(_BY_LAYER)}, found {shown(sets)}")
    full, sliding = (_object(sets, name, "rope_parameters.") for name in _BY_LAYER)
    extra = _object(config, "rope_scaling")
    if "type" in extra and "rope_type" not in extra:
        # transformers overlooks it: what it computes is not what the file says.
        raise refuse("rope_scaling.type", f"found {shown(extra['type'])}, expected it as rope_type")
    outer = number(config, "rope_theta", _FULL_THETA), number(config, "rope_local_base_freq", _SLIDING_THETA)
    names = "rope_scaling" if extra else f"rope_parameters.{_BY_LAYER[0]}", f"rope_parameters.{_BY_LAYER[1]}"
    bases = []
    for parameters, name, theta in zip((full | extra, sliding), names, outer, strict=True):
        _check_whole_head(config, parameters)
        bases.append(RopeBase(_theta(parameters, name, theta), _scaling(parameters, name, trained)))
    return bases[0], bases[1]


def _theta(parameters: Mapping[str, Any], name: str, otherwise: float) -> float:
    return number(parameters, "rope_theta", within=f"{name}.") if "rope_theta" in parameters else otherwise


def _scaling(
    parameters: Mapping[str, Any], name: str, trained: int, outside: Mapping[str, Any] | None = None
) -> RopeScaling | None:
    """outside: where the context before it was extended may stand too, and counts first."""
    kind, within = _kind(name, parameters), f"{name}."
    if kind == "default":
        return None
    factor = number(parameters, "factor", within=within)
    if kind == "linear":
        return RopeScaling(kind, factor)
    low = number(parameters, "low_freq_factor", within=within)
    high = number(parameters, "high_freq_factor", within=within)
    if high <= low:
        raise refuse(f"{within}high_freq_factor", f"expected more than low_freq_factor {low}, found {high}")
    original = whole(outside or {}, _ORIGINAL, whole(parameters, _ORIGINAL, trained))
    return RopeScaling(kind, factor, low, high, original)


def _object(config: Mapping[str, Any], name: str, within: str = "") -> dict[str, Any]:
    """The parameters in one spelling; none when it is absent, null or empty. within: what `config` is."""
    parameters = config.get(name) or {}
    name = f"{within}{name}"
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
