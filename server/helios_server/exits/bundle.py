"""Exit-head bundles on disk, format `helios-exits/1`: `exits.safetensors` and `exits.json` in one directory.

Called by the engine, the profiler and the command. A bundle belongs to one backbone, by fingerprint;
loading refuses a mismatch by name. Tuning writes bundles through `write_bundle`; nothing here trains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from helios_server.errors import BundleError, CheckpointError
from helios_server.exits.confidence import BREACH_DISAGREEMENT, Calibration
from helios_server.exits.head import KINDS, BareHead, ExitHead, head_shapes
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.header import TensorEntry, read_header
from helios_server.models.json_file import read_object, shown
from helios_server.models.reading import reading
from helios_server.models.store import locate

FORMAT = "helios-exits/1"
BUILTIN = Path(__file__).parent / "builtin"
_TENSORS, _META = "exits.safetensors", "exits.json"
_DTYPE = "F16"


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle by name. uri: builtin://, file://, pvc:// or hf://; digest: `sha256:...` of its content, if
    known."""

    uri: str
    digest: str | None = None


class HeadBundle:
    """The trained heads of one backbone's exit layers. `meta` is exits.json as it stands."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.digest: str = meta["digest"]
        self._kinds: dict[int, str] = {item["layer"]: item["kind"] for item in meta["exits"]}

    @classmethod
    def load(cls, path: Path, checkpoint: Checkpoint, uri: str = "") -> HeadBundle:
        """Reads and checks a bundle directory for a backbone. uri: what the bundle was asked for by. Raises
        BundleError, which names what does not fit."""
        bundle = cls(path, _read_meta(path))
        _check_backbone(bundle, checkpoint, uri or str(path))
        _check_exits(bundle, checkpoint)
        actual = _digest(path / _TENSORS, bundle.meta)
        if actual != bundle.digest:
            raise BundleError(
                str(path), f"digest is {actual}, {_META} says {bundle.digest}", "Copy the bundle again"
            )
        return bundle

    @property
    def layers(self) -> tuple[int, ...]:
        """Exit layers, ascending. Layer k is the hidden state after the first k layers."""
        return tuple(sorted(self._kinds))

    @property
    def kind(self) -> str:
        """The most costly kind of head in the bundle: `affine` or `mlp`."""
        return max(self._kinds.values())

    def head(self, layer: int, backbone: Backbone) -> ExitHead:
        """The head to use after `layer` layers: bare at full depth and at layers that the bundle does not
        cover."""
        if layer not in self._kinds or layer == backbone.config.num_layers:
            return BareHead(backbone)
        return KINDS[self._kinds[layer]](self.tensors(layer), backbone)

    def calibration(self, layer: int) -> Calibration | None:
        """What the exit's confidence is worth, as measured when the bundle was made; None: not measured."""
        content = (self.meta.get("calibration") or {}).get(str(layer))
        return Calibration.from_json(content) if content else None

    def breach_thresholds(self) -> dict[int, float]:
        """By exit: the confidence, 0 to 1, under which a token counts as a breach.

        Exits that were not measured, or whose confidence tells too little, are not among them.
        """
        found = {
            layer: calibration.threshold(BREACH_DISAGREEMENT)
            for layer in self.layers
            if (calibration := self.calibration(layer))
        }
        return {layer: threshold for layer, threshold in found.items() if threshold is not None}

    def tensors(self, layer: int) -> dict[str, Tensor]:
        """Reads one exit's tensors, float16, by their name within the head."""
        prefix = f"exits.{layer}."
        entries = read_header(self.path / _TENSORS)
        return {
            name.removeprefix(prefix): _read(entry)
            for name, entry in entries.items()
            if name.startswith(prefix)
        }


def open_bundle(
    ref: BundleRef, checkpoint: Checkpoint, *, volumes: Path | None = None, offline: bool | None = None
) -> HeadBundle:
    """Finds a bundle by reference and loads it; its content must have the reference's digest where that is
    set."""
    with reading(ref.uri):
        path = find_bundle(ref.uri, volumes=volumes, offline=offline)
        bundle = HeadBundle.load(path, checkpoint, ref.uri)
    if ref.digest and bundle.digest != ref.digest:
        raise BundleError(
            ref.uri, f"digest is {bundle.digest}, expected {ref.digest}", "Name the bundle's new digest"
        )
    return bundle


def find_bundle(uri: str, *, volumes: Path | None = None, offline: bool | None = None) -> Path:
    """The directory of a bundle; fetches it for hf://."""
    scheme, _, name = uri.partition("://")
    if scheme != "builtin":
        return locate(uri, volumes=volumes, offline=offline)[0]
    names = sorted(path.parent.name for path in BUILTIN.glob(f"*/{_META}"))
    if name not in names:
        raise BundleError(uri, "no such built-in bundle", f"Use one of {', '.join(names)}")
    return BUILTIN / name


def write_bundle(
    path: Path, heads: Mapping[int, tuple[str, Mapping[str, Tensor]]], meta: dict[str, Any]
) -> str:
    """Writes heads (layer -> kind and tensors) with `meta` (backbone, training, evaluation). Returns the
    digest."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"exits.{layer}.{name}": tensor.to("cpu", torch.float16).contiguous()
        for layer, (_, parts) in sorted(heads.items())
        for name, tensor in parts.items()
    }
    save_file(tensors, path / _TENSORS)
    (path / _TENSORS).chmod(0o644)
    exits = [{"layer": layer, "kind": kind} for layer, (kind, _) in sorted(heads.items())]
    return write_meta(path, {"format": FORMAT, **meta, "exits": exits})


def write_meta(path: Path, meta: dict[str, Any]) -> str:
    """Writes exits.json beside the tensors, with the digest of both, which is returned."""
    digest = _digest(path / _TENSORS, meta)
    content = {key: value for key, value in meta.items() if key != "digest"} | {"digest": digest}
    (path / _META).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return digest


def describe_backbone(checkpoint: Checkpoint) -> dict[str, Any]:
    """The `backbone` part of exits.json."""
    config = checkpoint.config
    return {
        "fingerprint": checkpoint.fingerprint,
        "hiddenSize": config.hidden_size,
        "numLayers": config.num_layers,
        "vocabSize": config.vocab_size,
    }


def _digest(tensors: Path, meta: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(tensors.read_bytes())
    without = {key: value for key, value in meta.items() if key != "digest"}
    text = json.dumps(without, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest.update(text.encode(errors="backslashreplace"))
    return f"sha256:{digest.hexdigest()}"


def _read_meta(path: Path) -> dict[str, Any]:
    """The content of exits.json; all that is read of it later is there and of its kind."""
    file = path / _META
    again = "Give a directory that `helios tune` wrote"
    meta = read_object(file, again, BundleError)
    if meta.get("format") != FORMAT:
        raise BundleError(str(file), f"format is {shown(meta.get('format'))}, expected '{FORMAT}'", again)
    kinds = {"backbone": (dict, "an object"), "exits": (list, "a list"), "digest": (str, "a text")}
    for key, (kind, expected) in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise BundleError(str(file), f"{key} is {shown(meta.get(key))}, expected {expected}", again)
    for index, item in enumerate(meta["exits"]):
        fields = item if isinstance(item, dict) else {}
        if type(fields.get("layer")) is not int or not isinstance(fields.get("kind"), str):
            problem = f"exits[{index}] is {shown(item)}, expected an object with a layer and a kind"
            raise BundleError(str(file), problem, again)
    layers = [item["layer"] for item in meta["exits"]]
    if not layers or len(set(layers)) < len(layers):
        raise BundleError(str(file), f"exits are at layers {layers}, expected one or more, each once", again)
    _check_calibration(file, meta.get("calibration"))
    return meta


def _check_calibration(file: Path, content: Any) -> None:
    of_exits = content if isinstance(content, dict) else {"": content}
    for layer, found in of_exits.items():
        if content is None or found is None:
            continue
        try:
            Calibration.from_json(found)
        except ValueError as error:
            where = f"calibration.{layer}" if layer else "calibration"
            raise BundleError(str(file), f"{where}: {error}", "Copy the bundle again") from None


def _check_backbone(bundle: HeadBundle, checkpoint: Checkpoint, uri: str) -> None:
    """Another shape says more than the other fingerprint that comes of it."""
    wanted, actual = bundle.meta["backbone"], describe_backbone(checkpoint)
    differing = [key for key, value in actual.items() if wanted.get(key) != value]
    if not differing:
        return
    of_shape = [key for key in differing if key in wanted and key != "fingerprint"]
    key = (of_shape or differing)[0]
    problem = (
        f"was trained for a backbone with {key} {_short(wanted.get(key))} (expected), {checkpoint.named} has "
        f"{_short(actual[key])} (found)" + ("" if of_shape else " and the same shape")
    )
    layers = () if of_shape else tuple(k for k in bundle.layers if 0 < k < checkpoint.config.num_layers)
    tune = ["helios tune", checkpoint.named, "TEXT"]
    tune += [f"--layers {','.join(map(str, layers))}"] if layers else []
    fix = f"Use a bundle of this backbone, or train one: {' '.join([*tune, '--out DIR'])}"
    raise BundleError(uri, problem, fix)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


def _check_exits(bundle: HeadBundle, checkpoint: Checkpoint) -> None:
    try:
        entries = read_header(bundle.path / _TENSORS)
    except CheckpointError as error:
        raise BundleError(error.field, error.problem, "Copy the bundle again") from error
    depth, d = checkpoint.config.num_layers, checkpoint.config.hidden_size
    for layer in bundle.layers:
        kind = bundle._kinds[layer]
        if not 1 <= layer < depth:
            raise BundleError(
                str(bundle.path), f"has an exit at layer {layer}, outside 1..{depth - 1}", "Tune it again"
            )
        if kind not in KINDS:
            raise BundleError(
                str(bundle.path), f"has a head of kind '{kind}' at layer {layer}", f"Use {', '.join(KINDS)}"
            )
        for name, shape in head_shapes(kind, d).items():
            entry = entries.get(f"exits.{layer}.{name}")
            if entry is None or entry.shape != shape or entry.dtype != _DTYPE:
                found = None if entry is None else f"{list(entry.shape)} of {entry.dtype}"
                problem = f"tensor exits.{layer}.{name} is {found}, expected {list(shape)} of {_DTYPE}"
                raise BundleError(str(bundle.path), problem, "Copy the bundle again")


def _read(entry: TensorEntry) -> Tensor:
    data = entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
    return torch.frombuffer(bytearray(data), dtype=torch.float16).reshape(entry.shape)
