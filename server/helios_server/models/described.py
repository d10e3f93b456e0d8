"""What a model looks like, by as little as says so: a built-in shape, or a config.json.

Called by whoever plans before a model is downloaded. No tensor is read, not even a header; nothing here may
import torch.
"""

from __future__ import annotations

from pathlib import Path

from helios_server.errors import ModelNotFoundError
from helios_server.models.config import ModelConfig
from helios_server.models.json_file import read_object
from helios_server.models.known import KNOWN
from helios_server.models.locate import CONFIG, SCHEMES, locate_config

_FIX = "Give a Hugging Face checkpoint directory"


def described(name: str, revision: str | None = None, *, volumes: Path | None = None) -> ModelConfig:
    """The config of a built-in shape, of a folder or of a uri. Raises ModelNotFoundError, CheckpointError or
    UnsupportedModelError."""
    for known, raw in KNOWN.items():
        if name.lower() == known.lower():
            return ModelConfig.from_hf(raw)
    if "://" in name:
        file = locate_config(name, revision, volumes=volumes)
    elif Path(name).is_dir():
        file = Path(name) / CONFIG
    else:
        fix = f"use one of {', '.join(KNOWN)}, a folder with a {CONFIG}, or {SCHEMES}"
        raise ModelNotFoundError(name, "is neither a known shape nor a folder", fix)
    return ModelConfig.from_hf(read_object(file, _FIX))
