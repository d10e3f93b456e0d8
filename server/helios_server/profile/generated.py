"""A sampled check on text that the model writes itself: do exits agree there as they do on the prompts?

Called by `quality.py`, told in the log and decided on by nobody. A few prompts are continued greedily at full
depth, then the exits are asked for the same tokens. It needs the whole model in memory, and says so where
that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from helios_server.engine.host_memory import anonymous_bytes
from helios_server.engine.offline import Weights, generate
from helios_server.engine.request import Served, Span
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.head import BareHead
from helios_server.models.backbone import Backbone
from helios_server.planning.memory import MIB
from helios_server.profile.exits import Heads, Texts, measure_exits

_TEXTS, _PROMPT_TOKENS, _NEW_TOKENS = 3, 64, 24


def check_generated(
    backbone: Backbone,
    heads: Heads,
    texts: Texts,
    memory_mib: int | None,
    context: int,
    progress: Callable[[str], None],
) -> None:
    """Loads the layers that are not in memory yet, and tells each candidate's agreement by depth. context:
    tokens."""
    missing = range(backbone.num_loaded, backbone.config.num_layers)
    need = (anonymous_bytes() + len(missing) * backbone.layer_bytes) // MIB + 1
    if memory_mib is not None and need > memory_mib and backbone.numerics.device.type == "cpu":
        progress(f"generated text: not checked, the whole model takes {need} MiB of {memory_mib}")
        return
    backbone.attach([backbone.load_layer(index) for index in missing])
    written = _continued(backbone, texts, context)
    measured = measure_exits(backbone, heads, written, lambda _: None)
    for name, exits in measured.exits.items():
        shares = ", ".join(f"{exit_.agreement:.0%} at {exit_.layer}" for exit_ in exits[:-1])
        if shares:
            progress(f"generated text, {written.scored_tokens} tokens: {name} agrees {shares} layers")


def _continued(backbone: Backbone, texts: Texts, context: int) -> Texts:
    """The first few texts, cut, each with what full depth makes of it."""
    depth = backbone.config.num_layers
    served = Served("", "", "", "", "", depth)
    weights = Weights(backbone, BareHead(backbone))
    new = max(1, min(_NEW_TOKENS, context // 2))
    room = context - new
    ids, given = [], []
    for index, text in enumerate(texts.ids[:_TEXTS]):
        prompt = tuple(text[: min(_PROMPT_TOKENS, room)].tolist())
        answer = generate(
            lambda _: weights, f"check-{index}", prompt, SamplingParams(), [Span(0, served)], new
        )
        ids.append(torch.tensor(prompt + answer.token_ids, dtype=torch.int64))
        given.append(len(prompt))
    return Texts(tuple(ids), tuple(given))
