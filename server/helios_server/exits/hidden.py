"""Hidden states of a backbone over training text, gathered once for all exits.

Called by `tuning.py`. Texts are cut into windows of equal length; one pass over each window keeps the
states at the exit layers and at the end. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from helios_server.errors import DataError
from helios_server.models.backbone import Backbone
from helios_server.models.step import whole_sequences
from helios_server.models.tokenizer import Tokenizer

WINDOW_TOKENS = 256
_WINDOWS_AT_ONCE = 2  # fits the caches of a CPU; more is slower there
Passed = Callable[[float], None]
"""Takes which share of some work is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """States of T tokens. at: layer -> [T, hidden_size]; final: [T, hidden_size] after the final norm; ids:
    [T]."""

    at: dict[int, Tensor]
    final: Tensor
    ids: Tensor

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.ids)


def read_windows(source: Path, tokenizer: Tokenizer, tokens: int, seed: int) -> Tensor:
    """About `tokens` tokens of a text file, or of all files of a folder: [n, WINDOW_TOKENS], in random
    order."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    pieces = []
    for file in files:
        try:
            ids = tokenizer.encode(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                str(file), f"cannot be read as text ({error})", "Give UTF-8 text files"
            ) from error
        whole = len(ids) // WINDOW_TOKENS * WINDOW_TOKENS
        pieces.append(torch.tensor(ids[:whole], dtype=torch.int64).reshape(-1, WINDOW_TOKENS))
    windows = torch.cat(pieces) if pieces else torch.empty(0, WINDOW_TOKENS, dtype=torch.int64)
    if not len(windows):
        raise DataError(str(source), f"holds no text of {WINDOW_TOKENS} tokens", "Give longer texts")
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[: max(tokens // WINDOW_TOKENS, 1)]]


def gather(
    backbone: Backbone, windows: Tensor, layers: Sequence[int], passed: Passed = lambda _: None
) -> HiddenStates:
    """One full-depth pass over windows: [n, WINDOW_TOKENS]."""
    count, dtype, size = windows.numel(), backbone.numerics.activations, backbone.config.hidden_size
    at = {layer: torch.empty(count, size, dtype=dtype) for layer in layers}
    final = torch.empty(count, size, dtype=dtype)
    done = 0
    for batch in torch.split(windows, _WINDOWS_AT_ONCE):
        stop = done + batch.numel()
        states, last = states_of(backbone, batch, sorted(layers))
        for layer, state in states.items():
            at[layer][done:stop] = state
        final[done:stop] = backbone.final_norm(last)
        done = stop
        passed(done / count)
    return HiddenStates(at, final, windows.flatten())


def states_of(backbone: Backbone, batch: Tensor, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """batch: [n, length] ids. Returns layer -> [n * length, hidden_size], and the states after the last
    layer."""
    step = whole_sequences(backbone.layout, [batch.shape[1]] * len(batch))
    hidden = backbone.embed(batch.flatten().to(backbone.numerics.device), step.positions)
    below, states = 0, {}
    for layer in layers:
        hidden = backbone.run_layers(hidden, below, layer, step)
        states[layer], below = hidden.clone(), layer  # the next layer overwrites it
    return states, backbone.run_layers(hidden, below, backbone.config.num_layers, step)
