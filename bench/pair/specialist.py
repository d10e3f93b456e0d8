"""A specialist: a checkpoint whose top layers and final norm were trained on one kind of text.

Called by `make`. The trunk below is frozen, so that what it makes of each token is computed once; what lies
above learns to tell the next token, through the model's own LM head, which is frozen too. It must not measure
anything: held-out text is `judge`'s.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from helios_server.exits.hidden import gather, read_windows
from helios_server.exits.tuning import load_teacher
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer
from helios_server.progress import Progress, Say
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

_WINDOWS_A_STEP = 4
_WARM_UP = 0.05
"""Of the steps, while the learning rate rises."""
_BLOCK_TOKENS = 256
"""Of which logits stand at once."""
_REPORT_STEPS = 20


@dataclass(frozen=True)
class Plan:
    """How a specialist is trained. layers: from the top; tokens: read of its text; rate: of learning, at its
    peak; seed: of the order of the text. A step takes four windows of the text."""

    layers: int = 6
    tokens: int = 120_000
    steps: int = 180
    rate: float = 4e-4
    seed: int = 1


def train(source: Checkpoint, text: Path, plan: Plan, progress: Say) -> Mapping[str, Tensor]:
    """What is trained, by its name in the checkpoint, as it is stored there. text: a file, or a folder of
    files."""
    if source.raw_config["model_type"] != "llama":
        raise SystemExit(f"error: --model: {source.path} is no Llama; give a checkpoint of that family")
    below = source.config.num_layers - plan.layers
    if below < 1:
        raise SystemExit(f"error: --layers: {plan.layers} of {source.config.num_layers} leave no trunk")
    backbone = load_teacher(source)
    windows = read_windows(text, Tokenizer.open(source.path), plan.tokens, plan.seed)
    states = gather(backbone, windows, (below,), Progress().part(0, 1)).at[below]
    lm_head = backbone.head.weight
    if lm_head is None:
        raise RuntimeError("the LM head is packed: load the model for training")
    top, names = _top(source, plan.layers)
    _fit(top, states.reshape(*windows.shape, -1), windows, lm_head, plan, progress)
    trained = top.state_dict()
    return {name: trained[own].to(source.tensor(name).dtype) for own, name in names.items()}


def write(source: Checkpoint, trained: Mapping[str, Tensor], directory: Path) -> None:
    """A checkpoint like the source, with these tensors in the place of its own."""
    names = set(source.names).difference(source.strangers)
    tensors = {name: trained[name] if name in trained else source.tensor(name) for name in names}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    for file in source.path.iterdir():
        if file.is_file() and ".safetensors" not in file.name and file.name != "manifest.json":
            shutil.copy(file, directory / file.name)


def _top(source: Checkpoint, layers: int) -> tuple[LlamaModel, dict[str, str]]:
    """The last layers and the final norm as a model of their own, and the name in the checkpoint of each of
    its tensors."""
    without_words = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config = LlamaConfig.from_dict(
        source.raw_config | without_words | {"num_hidden_layers": layers, "dtype": "float32"}
    )
    top, below = LlamaModel(config), source.config.num_layers - layers
    names = {
        name: "model." + re.sub(r"^layers\.(\d+)", lambda found: f"layers.{below + int(found[1])}", name)
        for name in top.state_dict()
        if not name.startswith("embed_tokens")
    }
    top.load_state_dict({own: source.tensor(name).float() for own, name in names.items()}, strict=False)
    top.embed_tokens.requires_grad_(False)
    return top, names


def _fit(top: LlamaModel, states: Tensor, ids: Tensor, lm_head: Tensor, plan: Plan, progress: Say) -> None:
    """states: [n, window, hidden_size], of which the top makes what the LM head reads; ids: [n, window]."""
    dice = torch.Generator().manual_seed(plan.seed)
    learning = [each for each in top.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, plan.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=plan.steps, pct_start=_WARM_UP, cycle_momentum=False
    )
    bfloat16 = lm_head.dtype == torch.bfloat16
    for step in range(1, plan.steps + 1):
        chosen = torch.randint(len(states), (_WINDOWS_A_STEP,), generator=dice)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            read = top(inputs_embeds=states[chosen].float(), use_cache=False).last_hidden_state
        normed = read[:, :-1].flatten(0, 1)
        loss, gradient = _cross_entropy(normed.detach(), ids[chosen][:, 1:].flatten(), lm_head)
        normed.backward(gradient.to(normed.dtype))
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        if step % _REPORT_STEPS == 0 or step == plan.steps:
            progress(f"step {step} of {plan.steps}: {loss / 0.6931:.3f} bits a token")


@torch.no_grad()
def _cross_entropy(normed: Tensor, targets: Tensor, lm_head: Tensor) -> tuple[float, Tensor]:
    """Mean nats a token, and the gradient by the normed states. Block by block, so that logits never stand
    whole; autograd would keep them several times."""
    total, gradients = 0.0, []
    for states, wanted in zip(
        torch.split(normed, _BLOCK_TOKENS), torch.split(targets, _BLOCK_TOKENS), strict=True
    ):
        chances = F.linear(states.to(lm_head.dtype), lm_head).float().log_softmax(dim=-1)
        total -= float(chances.gather(1, wanted[:, None]).sum())
        chances.exp_()[torch.arange(len(wanted)), wanted] -= 1
        gradients.append((chances.to(lm_head.dtype) @ lm_head).float())
    return total / len(targets), torch.cat(gradients) / len(targets)
