"""What config.json says of sliding windows: one that clips the context, or one that some layers have.

Called by `config.py`. It must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helios_server.models.families import Family
from helios_server.models.json_file import flag, refuse, shown, whole

_WINDOW = 4096  # tokens, where a family slides and config.json does not say
_PERIOD = 6
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True)
class SlidingLayers:
    """Layers of which a token attends to the last `window` tokens only, itself included.

    listed: of every layer, whether it is one; None: all but every `period`-th.
    """

    window: int
    listed: tuple[bool, ...] | None
    period: int = _PERIOD

    def slides(self, layer: int) -> bool:
        """Whether a layer is one of them."""
        return (layer + 1) % self.period != 0 if self.listed is None else self.listed[layer]

    def kind(self, layer: int) -> str:
        """A layer's entry in `layer_types`."""
        return _SLIDING if self.slides(layer) else _FULL


def read_clipping_window(config: Mapping[str, Any], family: Family) -> int | None:
    """The window of all layers, in tokens; None: no such window."""
    slides = family.always_slides or (not family.sliding_layers and flag(config, "use_sliding_window"))
    if not slides or config.get("sliding_window", _WINDOW) in (None, 0):
        return None
    return whole(config, "sliding_window", _WINDOW)


def read_sliding_layers(config: Mapping[str, Any], layers: int) -> SlidingLayers:
    """For a family of which some layers slide. layers: how many there are."""
    if config.get("sliding_window", _WINDOW) is None:
        raise refuse("sliding_window", "found null, expected the tokens that a sliding layer attends to")
    window = whole(config, "sliding_window", _WINDOW)
    kinds = config.get("layer_types")
    if kinds is None:
        return SlidingLayers(window, None, whole(config, "sliding_window_pattern", _PERIOD))
    if not isinstance(kinds, list) or any(kind not in (_SLIDING, _FULL) for kind in kinds):
        raise refuse("layer_types", f"expected a list of {_SLIDING} and {_FULL}, found {shown(kinds)}")
    if len(kinds) != layers:
        raise refuse("layer_types", f"lists {len(kinds)} layers, num_hidden_layers says {layers}")
    return SlidingLayers(window, tuple(kind == _SLIDING for kind in kinds))
