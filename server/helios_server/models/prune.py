"""A second, shallower backbone made from a checkpoint by leaving decoder layers out.

Called by the demo and the tests, which need two real backbones. It copies weights and retrains nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from helios_server.errors import CheckpointError
from helios_server.models.cache import ensure_directory
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.families import Names
from helios_server.models.layout import layer_of

_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
)


def drop_layers(source: Path, target: Path, layers: Sequence[int]) -> Path:
    """Writes `source` without `layers` (renumbered) to `target`, unless it is there already. Returns
    `target`."""
    checkpoint = Checkpoint.open(source)
    depth, dropped = checkpoint.config.num_layers, set(layers)
    if not dropped < set(range(depth)):
        raise CheckpointError(
            "layers", f"{sorted(dropped)} is not a part of 0..{depth - 1}", "Name layers to drop"
        )
    kept = [layer for layer in range(depth) if layer not in dropped]
    recipe = f"{checkpoint.fingerprint} keeps {kept}"
    return ensure_directory(target, lambda directory: _write(checkpoint, kept, directory), recipe)


def _write(checkpoint: Checkpoint, kept: list[int], directory: Path) -> None:
    renumbered = {old: new for new, old in enumerate(kept)}
    tensors = {}
    for name in set(checkpoint.names).difference(checkpoint.strangers):
        new_name = _renamed(name, renumbered, checkpoint.config.names)
        if new_name:
            tensors[new_name] = checkpoint.tensor(name)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = _config(checkpoint, kept)
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for name in _COPIED:
        if (checkpoint.path / name).is_file():
            shutil.copy(checkpoint.path / name, directory / name)


def _renamed(name: str, renumbered: dict[int, int], names: Names) -> str | None:
    place = layer_of(name, names)
    if place is None:
        return name
    layer = renumbered.get(place[0])
    return None if layer is None else f"{names.layers}.{layer}.{place[1]}"


def _config(checkpoint: Checkpoint, kept: list[int]) -> dict[str, object]:
    config, sliding = checkpoint.raw_config | {"num_hidden_layers": len(kept)}, checkpoint.config.sliding
    if sliding:  # a layer stays what it is, whatever its new number
        config["layer_types"] = [sliding.kind(layer) for layer in kept]
    elif config.get("layer_types"):
        config["layer_types"] = [checkpoint.raw_config["layer_types"][layer] for layer in kept]
    return config
