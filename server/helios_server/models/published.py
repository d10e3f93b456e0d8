"""Checkpoints that are published quantised: compressed-tensors' int8 weights, a unit per channel (W8A16).

Read by `config.py` (is it one that is read as it stands) and by `layout.py` and `checkpoint.py` (which
tensors a matrix consists of). All other methods are refused by name. Nothing here may import torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.errors import UnsupportedModelError
from helios_server.models.json_file import shown

UNQUANTISED = "Give the model as it was before it was quantised, in a float dtype"
_FIELD = "quantization_config"
_METHOD = "compressed-tensors"
_FORMATS = ("pack-quantized", "int-quantized")
_WEIGHTS: Mapping[str, tuple[Any, ...]] = {
    "num_bits": (8,), "type": ("int",), "strategy": ("channel",), "symmetric": (True, None),
    "dynamic": (False, None),
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_WORD = 4
"""Weights of an int32 in the packed format."""


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor that belongs to a matrix. shape: elements per axis; dtypes: safetensors' names of those that
    it may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """packed: four weights stand in an int32 (pack-quantized); else each is an int8 (int-quantized)."""

    packed: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Published | None:
        """What config.json says; None: the weights are floats. Raises UnsupportedModelError, which names the
        field."""
        quantised = config.get(_FIELD)
        if not quantised:
            return None
        if not isinstance(quantised, dict) or quantised.get("quant_method") is None:
            raise _refused(_FIELD, quantised, f"quant_method {_METHOD}")
        if quantised["quant_method"] != _METHOD:
            raise _refused(f"{_FIELD}.quant_method", quantised["quant_method"], _METHOD)
        for name in ("kv_cache_scheme", "sparsity_config", "transform_config"):
            if quantised.get(name) not in (None, {}):
                raise _refused(f"{_FIELD}.{name}", quantised[name], "none")
        formats = {_format_of(quantised, name, group) for name, group in _groups(quantised)}
        if len(formats) != 1:
            raise _refused(f"{_FIELD}.config_groups", sorted(formats), "one format")
        return cls(packed=formats == {_FORMATS[0]})

    def holds(self, matrix: str, names: Collection[str]) -> bool:
        """Whether this matrix is quantised; some are left out. matrix: its name as floats."""
        return f"{matrix}_scale" in names

    def parts(self, matrix: str, shape: tuple[int, ...]) -> dict[str, Part]:
        """The tensors of a matrix that is quantised, by name. shape: [out, in]."""
        out_features, in_features = shape
        parts = {f"{matrix}_scale": Part((out_features, 1), _FLOATS)}
        if not self.packed:
            return parts | {matrix: Part(shape, ("I8",))}
        words = -(-in_features // _WORD)
        parts[f"{matrix}_packed"] = Part((out_features, words), ("I32",))
        return parts | {f"{matrix}_shape": Part((2,), ("I64",))}


def _groups(quantised: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    groups = quantised.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise _refused(f"{_FIELD}.config_groups", groups, "an object of groups")
    for name, group in groups.items():
        field = f"{_FIELD}.config_groups.{name}"
        if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
            raise _refused(field, group, "an object with weights")
        for part in ("input_activations", "output_activations"):
            if group.get(part) is not None:
                raise _refused(f"{field}.{part}", group[part], "none")
        for option, allowed in _WEIGHTS.items():
            found = group["weights"].get(option)
            if not any(found is each or (type(found) is type(each) and found == each) for each in allowed):
                raise _refused(f"{field}.weights.{option}", found, shown(allowed[0]))
        yield name, group


def _format_of(quantised: Mapping[str, Any], name: str, group: Mapping[str, Any]) -> str:
    field, found = f"{_FIELD}.format", quantised.get("format")
    if group.get("format") is not None:
        field, found = f"{_FIELD}.config_groups.{name}.format", group["format"]
    if not isinstance(found, str) or found not in _FORMATS:
        raise _refused(field, found, " or ".join(_FORMATS))
    return found


def _refused(field: str, found: Any, expected: str) -> UnsupportedModelError:
    problem = (
        f"of quantised checkpoints {_METHOD} with 8 bits per channel are read: found {shown(found)}, expected"
    )
    return UnsupportedModelError(field, f"{problem} {expected}", UNQUANTISED)
