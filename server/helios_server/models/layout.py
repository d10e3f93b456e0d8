"""The tensors that a config.json promises, by name and shape, and whether a checkpoint's headers keep it.

Called by `checkpoint.py` when it opens, so before any tensor is read, and for all layers, those above a
budget too. It sees headers only. Names are those of transformers' causal model of the family, such as
`model.layers.0. ...`; `ModelConfig.names` has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from helios_server.errors import CheckpointError, UnsupportedModelError
from helios_server.models.config import ModelConfig
from helios_server.models.families import Names
from helios_server.models.header import FLOATS, TensorEntry
from helios_server.models.published import UNQUANTISED, Part
from helios_server.models.shapes import layer_shapes, norm_shapes

HEAD = "lm_head.weight"
_DERIVED = (".rotary_emb.inv_freq", ".decoder.version")  # old Llama and OPT checkpoints store them
_FITTING = "Give the config.json that belongs to these weights"
# What a layer of a quantised checkpoint holds beside, or in place of, its weights.
_QUANTISED = {
    "g_idx": "GPTQ",
    "qweight": "AWQ or GPTQ",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes",
    "weight_packed": "compressed-tensors",
    "weight_scale_inv": "fp8",
    "weight_scale": "fp8 or int8",
    "scales": "MLX or GPTQ",
}


def layer_of(name: str, names: Names) -> tuple[int, str] | None:
    """A tensor's layer and its name within that; None: it is of no layer."""
    match = re.fullmatch(rf"{re.escape(names.layers)}\.(0|[1-9]\d{{0,8}})\.(.+)", name)
    return (int(match[1]), match[2]) if match else None


def canonical(stored: Iterable[str], names: Names) -> dict[str, str]:
    """The names of the causal model -> the stored ones.

    As transformers does, a name may lack `model.`, as a base model's do, or have it twice. Raises ValueError
    when two stored names are the same tensor.
    """
    found: dict[str, str] = {}
    for name in stored:
        full = _full_name(name, names)
        if full in found:
            raise ValueError(f"'{found[full]}' and '{name}' are the same tensor")
        found[full] = name
    return found


def _full_name(name: str, names: Names) -> str:
    inner = name
    while inner.startswith("model."):
        inner = inner.removeprefix("model.")
    if inner.startswith("lm_head."):
        return inner
    return f"model.{inner}" if inner.startswith(names.roots) else name


def check_layout(
    folder: Path, config: ModelConfig, names: Mapping[str, str], entries: Mapping[str, TensorEntry]
) -> tuple[str, ...]:
    """Compares what there is with what config.json says. Returns what is no part of the model, canonical.

    names: canonical -> stored, of all tensors; entries: by canonical name, of those whose file is there.
    Raises CheckpointError or UnsupportedModelError: tensor, found, expected.
    """
    if config.published is None:
        _refuse_quantised(names)
    _check_naming(folder, config, names)
    _check_depth(folder, config, names)
    _check_alike(config, names)
    strangers = set(names)
    for name, part in _expected_parts(config, names):
        if name in names:
            strangers.discard(name)
            if name in entries:
                padded = (
                    name.startswith((config.names.embedding, HEAD)) and part.shape[0] == config.vocab_size
                )
                _check(names[name], entries[name], part, padded=padded)
        elif not _tied_to_another(name, config, names):
            problem = f"tensor '{name}' is missing, expected {list(part.shape)}"
            raise CheckpointError(str(folder), problem, _advice(name))
    return _ignorable(folder, names, strangers)


def _expected_parts(config: ModelConfig, names: Mapping[str, str]) -> Iterator[tuple[str, Part]]:
    """What there must be, be it as floats or in the form in which it was published."""
    for name, shape in _expected(config):
        if config.published and name != config.names.embedding and config.published.holds(name, names):
            yield from config.published.parts(name, shape).items()
        else:
            yield name, Part(shape, tuple(FLOATS))


def _check_alike(config: ModelConfig, names: Mapping[str, str]) -> None:
    """All layers of a model take the same memory: the same matrices are quantised in each."""
    if config.published is None:
        return
    kinds = {
        frozenset(
            name
            for name in layer_shapes(config)
            if config.published.holds(f"{config.names.layers}.{layer}.{name}", names)
        )
        for layer in range(config.num_layers)
    }
    if len(kinds) > 1:
        unlike = sorted(frozenset.union(*kinds) - frozenset.intersection(*kinds))
        problem = f"'{unlike[0]}' is quantised in some layers and not in others, expected all alike"
        raise UnsupportedModelError("quantization_config.ignore", problem, UNQUANTISED)


def _expected(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    names, table = config.names, (config.vocab_size, config.hidden_size)
    yield from ((names.embedding, table), (HEAD, table))
    yield from norm_shapes(config, names.final_norm, config.hidden_size).items()
    if names.positions and config.position_offset is not None:
        yield names.positions, (config.position_offset + config.max_context, config.hidden_size)
    of_layer = layer_shapes(config)
    for layer in range(config.num_layers):
        for name, shape in of_layer.items():
            yield f"{names.layers}.{layer}.{name}", shape


def _tied_to_another(name: str, config: ModelConfig, names: Mapping[str, str]) -> bool:
    """Of embedding and LM head one is enough where they are one."""
    embedding = config.names.embedding
    return config.tied_embeddings and {embedding: HEAD, HEAD: embedding}.get(name) in names


def _advice(name: str) -> str:
    if name == HEAD:
        return "Copy the model again, complete; if its head is the embedding, set tie_word_embeddings to true"
    return f"Copy the model again, complete. {_FITTING}"


def _check(stored: str, entry: TensorEntry, part: Part, *, padded: bool) -> None:
    """padded: more rows than the vocabulary has are allowed; they are never read."""
    shape = part.shape
    fits = entry.shape == shape
    if padded and len(entry.shape) == 2:
        fits = entry.shape[0] >= shape[0] and entry.shape[1] == shape[1]
    if not fits:
        problem = f"tensor '{stored}' is {list(entry.shape)}, config.json says {list(shape)}"
        raise CheckpointError(str(entry.file), problem, _FITTING)
    if entry.dtype not in part.dtypes:
        problem = f"tensor '{stored}' has dtype {entry.dtype}, expected one of {', '.join(part.dtypes)}"
        raise CheckpointError(str(entry.file), problem, UNQUANTISED)


def _refuse_quantised(names: Mapping[str, str]) -> None:
    kinds = {stored.rpartition(".")[2]: stored for stored in names.values() if ".layers." in f".{stored}"}
    for suffix, method in _QUANTISED.items():
        if suffix in kinds:
            problem = f"the weights are quantised ({method}): found '{kinds[suffix]}', expected floats"
            raise UnsupportedModelError("quantization_config", problem, UNQUANTISED)


def _check_naming(folder: Path, config: ModelConfig, names: Mapping[str, str]) -> None:
    """At least one tensor of a decoder stands where it is looked for."""
    if any(layer_of(name, config.names) for name in names):
        return
    layers = f"{config.names.layers}.0.{config.names.before_attention}.weight"
    problem = f"expected tensor names such as '{layers}', found {_some(names.values())}"
    prefixes = {name[: -len(layers)] for name in names.values() if name.endswith(f".{layers}")}
    prefixes |= {name[: -len(layers) + 6] for name in names.values() if name.endswith(f".{layers[6:]}")}
    fix = "Convert it: load it with transformers' AutoModelForCausalLM and write it with save_pretrained"
    if prefixes:
        fix = f"Rename the tensors without '{min(prefixes)}': safetensors.torch's load_file, then save_file"
    raise CheckpointError(str(folder), problem, fix)


def _check_depth(folder: Path, config: ModelConfig, names: Mapping[str, str]) -> None:
    layers = {place[0] for name in names if (place := layer_of(name, config.names))}
    missing = next(layer for layer in range(len(layers) + 1) if layer not in layers)
    if missing < config.num_layers:
        problem = f"holds no tensors of layer {missing}, num_hidden_layers says {config.num_layers} layers"
        raise CheckpointError(str(folder), problem, f"Copy the model again, complete. {_FITTING}")
    if max(layers) >= config.num_layers:
        problem = f"holds tensors of layer {max(layers)}, num_hidden_layers says {config.num_layers} layers"
        raise CheckpointError(str(folder), problem, f"{_FITTING}, or leave layers out with drop_layers")


def _ignorable(folder: Path, names: Mapping[str, str], strangers: set[str]) -> tuple[str, ...]:
    """Tensors beside the model change nothing; one within it would be missing from what it computes."""
    for name in sorted(strangers):
        if name.startswith(("model.", "lm_head.")) and not name.endswith(_DERIVED):
            problem = f"tensor '{names[name]}' is part of no layer that config.json describes"
            raise CheckpointError(str(folder), problem, _FITTING)
    return tuple(sorted(strangers))


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(f"'{name}'" for name in ordered[:2]) + ("" if len(ordered) < 3 else ", ...") or "none"
