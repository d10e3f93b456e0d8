"""Which file of a model's folder holds which tensor; and what a folder is that holds a model in another form.

Called by `checkpoint.py` and, where there is no config.json, by `store.py`. It reads the index or one header.
A shard that the index names may be missing here: a budget may never need it.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from helios_server.errors import CheckpointError
from helios_server.models.header import read_header
from helios_server.models.json_file import read_object, shown

COMPLETE = "Copy the model again, complete"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_NAME = 255  # bytes, of a file
_ADAPTER = "adapter_config.json"
_RESAVE = "load it with transformers' AutoModelForCausalLM.from_pretrained and write it with save_pretrained"


def find_shards(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the names that are stored. Raises CheckpointError."""
    if (folder / SINGLE).is_file():
        return dict.fromkeys(read_header(folder / SINGLE), SINGLE)
    index = folder / INDEX
    if not index.is_file():
        refuse_other_forms(folder)
        problem = f"holds neither {SINGLE} nor {INDEX}"
        raise CheckpointError(str(folder), problem, "Save the model as safetensors")
    shards = read_object(index, COMPLETE).get("weight_map")
    if not isinstance(shards, dict):
        problem = f"weight_map is {shown(shards)}, expected an object of tensor names and files"
        raise CheckpointError(str(index), problem, COMPLETE)
    for name, file in shards.items():
        if not _is_inside(file):
            problem = f"weight_map has {shown(file)} for '{name}', expected the name of a file beside it"
            raise CheckpointError(str(index), problem, COMPLETE)
    return shards


def _is_inside(file: object) -> bool:
    if not isinstance(file, str) or not file.endswith(".safetensors") or "\0" in file:
        return False
    path = PurePosixPath(file)
    short = all(len(part.encode(errors="replace")) <= _LONGEST_NAME for part in path.parts)
    return short and not path.is_absolute() and ".." not in path.parts


def refuse_other_forms(folder: Path) -> None:
    """Raises CheckpointError when the folder holds no model but an adapter, a GGUF file, pickles or loose
    shards: what was found, and how to convert it."""
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return
    if (folder / _ADAPTER).is_file():
        base = _base_model(folder / _ADAPTER)
        fix = f"Merge it into {base}: peft's AutoPeftModelForCausalLM, merge_and_unload(), save_pretrained"
        raise _other_form(folder, f"{_ADAPTER}, so an adapter", fix)
    forms = {
        "*.gguf": ("a GGUF file", f"Convert it: {_RESAVE} (gguf_file= names the file)"),
        "*.safetensors": ("whose name or index is missing", f"{COMPLETE}, with {INDEX}"),
        "*.bin": ("a PyTorch pickle", f"Convert it: {_RESAVE}"),
        "*.pt": ("a PyTorch pickle", f"Convert it: {_RESAVE}"),
        "*.pth": ("a PyTorch pickle", f"Convert it: {_RESAVE}"),
    }
    for pattern, (what, fix) in forms.items():
        if found := sorted(file.name for file in folder.glob(pattern)):
            raise _other_form(folder, f"{found[0]}, {what}", fix)


def _other_form(folder: Path, found: str, fix: str) -> CheckpointError:
    return CheckpointError(str(folder), f"holds neither {SINGLE} nor {INDEX}, but {found}", fix)


def _base_model(file: Path) -> str:
    try:
        name = json.loads(file.read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        name = None
    return name if isinstance(name, str) and name else "its base model"
