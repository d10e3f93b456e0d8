"""Fits the heads of one exit: ridge regression onto the final states, then KL from the full model.

Called by `tuning.py` with cached hidden states. It knows nothing of text, files or bundles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helios_server.exits.head import head_shapes
from helios_server.exits.hidden import Passed
from helios_server.models.norm import Norm, RmsNorm
from helios_server.progress import Say

RIDGE = 1e-4  # of the variance of each input
BATCH_TOKENS = 1024
_BLOCK_TOKENS = 256  # logits of one block stay in the caches of a CPU
_WARM_UP = 0.02  # of the training, while the learning rate rises
_PEAK_RATE = 1e-3
_SAMPLED_TOKENS = 2048  # of the tokens that are not frequent, drawn anew each step
_REPORT_STEPS = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """Of one domain: what a head reads and what it should give. inputs, targets: [T, hidden_size], one row
    a token."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: steps, or seconds of wall clock; exactly one is set."""

    steps: int | None = None
    seconds: float | None = None


class TrainableHead(nn.Module):
    """The float32 twin of `MlpHead` and `AffineHead`, under the names that a bundle stores."""

    def __init__(self, kind: str, hidden_size: int, eps: float, final_norm: Norm) -> None:
        super().__init__()
        shapes = head_shapes(kind, hidden_size)
        self.tensors = nn.ParameterDict(
            {
                name.replace(".", "_"): nn.Parameter(torch.zeros(shape, device=final_norm.weight.device))
                for name, shape in shapes.items()
            }
        )
        self._names = list(shapes)
        self._eps = eps
        self._final = final_norm.wide()

    def part(self, name: str) -> nn.Parameter:
        """One tensor by its name in the bundle."""
        parameter: nn.Parameter = self.tensors[name.replace(".", "_")]
        return parameter

    @property
    def device(self) -> torch.device:
        """Where the head is trained: beside the backbone's norm."""
        return self._final.weight.device

    def forward(self, hidden: Tensor) -> Tensor:
        x = RmsNorm(self.part("norm"), self._eps)(hidden.float())
        out = F.linear(x, self.part("affine.weight"), self.part("affine.bias"))
        if "down.weight" in self._names:
            gated = F.silu(F.linear(x, self.part("gate.weight"))) * F.linear(x, self.part("up.weight"))
            out = out + F.linear(gated, self.part("down.weight"))
        return self._final(out.float())

    def export(self) -> dict[str, Tensor]:
        """The trained tensors as a bundle stores them."""
        return {name: self.part(name).detach().half() for name in self._names}


def fit_ridge(head: TrainableHead, pairs: Sequence[Pair]) -> None:
    """Sets the affine part to the best linear map from normed inputs to targets, each domain weighing the
    same."""
    size = pairs[0].inputs.shape[1]
    gram = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    cross = torch.zeros(size + 1, size, dtype=torch.float64)
    norm = RmsNorm(torch.ones(size, device=head.device), head._eps)
    for pair in pairs:
        for rows, targets in _blocks(8192, pair.inputs, pair.targets):
            x = F.pad(norm(rows.to(head.device, torch.float32)), (0, 1), value=1.0)
            gram += (x.T @ x).double().cpu() / len(pair.inputs)
            # The head ends in the final norm, so the map aims at what comes before that norm's weight.
            aims = head._final.unscaled(targets.to(head.device, torch.float32))
            cross += (x.T @ aims).double().cpu() / len(pair.inputs)
    # Per input, not on the mean: a few directions of a residual stream are a thousand times larger than the
    # rest.
    penalty = torch.diag(RIDGE * gram.diagonal())
    penalty[-1, -1] = 0
    solution = torch.linalg.solve(gram + penalty, cross)
    with torch.no_grad():
        head.part("norm").fill_(1.0)
        head.part("affine.weight").copy_(solution[:-1].T)
        head.part("affine.bias").copy_(solution[-1])


def distill(
    head: TrainableHead,
    pairs: Sequence[Pair],
    lm_head: Tensor,
    frequent: Tensor,
    budget: Budget,
    seed: int,
    say: Say,
    passed: Passed = lambda _: None,
) -> int:
    """Minimises KL(full model || head). Returns the steps made.

    lm_head: [vocab, hidden_size]. frequent: [F] int64, tokens whose probabilities every step compares; a
    random sample, drawn anew each step, stands for all others.
    """
    generator = torch.Generator().manual_seed(seed)
    _open_gate(head, generator)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    shortlist = _Shortlist(lm_head, frequent, generator)
    clock, step = _Clock(budget), 0
    while (done := clock.share(step)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = _PEAK_RATE * _schedule(done)
        batch = _batch(pairs, generator, head.device)
        _step(head, batch, *shortlist.draw(), optimizer)
        step += 1
        if step % _REPORT_STEPS == 0:
            loss = divergence(head, batch, lm_head)
            say(f"step {step} ({100 * min(clock.share(step), 1.0):.0f} %): KL {loss:.3f} bits a token")
        passed(min(clock.share(step), 1.0))
    return step


class _Shortlist:
    """The frequent rows of the LM head, and as many drawn from the rest for one step."""

    def __init__(self, lm_head: Tensor, frequent: Tensor, generator: torch.Generator) -> None:
        rest = torch.ones(len(lm_head), dtype=torch.bool)
        rest[frequent] = False
        self._rest = rest.nonzero()[:, 0]
        self._drawn = min(_SAMPLED_TOKENS, len(self._rest))
        self._lm_head = lm_head
        self._rows = torch.cat((lm_head[frequent.to(lm_head.device)], lm_head[: self._drawn]))
        self._offsets = torch.zeros(len(self._rows), dtype=lm_head.dtype, device=lm_head.device)
        # Each drawn token stands for the many that were not.
        self._offsets[len(frequent) :] = math.log(max(len(self._rest), 1) / max(self._drawn, 1))
        self._frequent = len(frequent)
        self._generator = generator

    def draw(self) -> tuple[Tensor, Tensor]:
        """Rows: [F + drawn, hidden_size]; offsets to their logits: [F + drawn]."""
        chosen = torch.randint(max(len(self._rest), 1), (self._drawn,), generator=self._generator)
        self._rows[self._frequent :] = self._lm_head[self._rest[chosen].to(self._lm_head.device)]
        return self._rows, self._offsets


class _Clock:
    """How much of the budget is used, 0 to 1."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._start = time.monotonic()

    def share(self, step: int) -> float:
        if self._budget.steps is not None:
            return step / self._budget.steps
        return (time.monotonic() - self._start) / (self._budget.seconds or 1.0)


def _schedule(done: float) -> float:
    return done / _WARM_UP if done < _WARM_UP else 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _open_gate(head: TrainableHead, generator: torch.Generator) -> None:
    """Random gate and up, zero down: the head starts as its affine part."""
    for name in ("gate.weight", "up.weight"):
        if name in head._names:
            weight = head.part(name)
            noise = torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5
            with torch.no_grad():
                weight.copy_(noise)


def _batch(pairs: Sequence[Pair], generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """As many tokens of each domain, whatever their sizes."""
    inputs, targets = [], []
    for pair in pairs:
        rows = torch.randint(len(pair.inputs), (BATCH_TOKENS // len(pairs),), generator=generator)
        inputs.append(pair.inputs[rows])
        targets.append(pair.targets[rows])
    return torch.cat(inputs).to(device), torch.cat(targets).to(device)


def _step(
    head: TrainableHead,
    batch: tuple[Tensor, Tensor],
    rows: Tensor,
    offsets: Tensor,
    optimizer: torch.optim.Optimizer,
) -> None:
    inputs, targets = batch
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=rows.dtype == torch.bfloat16):
        normed = head(inputs)
    normed.backward(_gradient(normed.detach(), targets, rows, offsets))
    nn.utils.clip_grad_norm_(head.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def _gradient(student: Tensor, teacher: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """Of mean KL by the student's normed states: the difference of the two distributions, back through the
    LM head.

    Block by block, so that logits never stand whole; autograd would keep them several times.
    """
    gradients = []
    for ours, theirs in _blocks(_BLOCK_TOKENS, student, teacher):
        wanted = F.linear(theirs.to(rows.dtype), rows, offsets).softmax(dim=-1)
        given = F.linear(ours.to(rows.dtype), rows, offsets).softmax(dim=-1)
        gradients.append(given.sub_(wanted) @ rows)
    return torch.cat(gradients).to(student.dtype) / len(student)


@torch.no_grad()
def divergence(head: TrainableHead, batch: tuple[Tensor, Tensor], lm_head: Tensor) -> float:
    """Mean KL(full model || head) in bits a token, over the whole vocabulary."""
    total = 0.0
    for inputs, targets in _blocks(_BLOCK_TOKENS, *batch):
        wanted = F.linear(targets.to(lm_head.dtype), lm_head).float().log_softmax(dim=-1)
        given = F.linear(head(inputs).to(lm_head.dtype), lm_head).float().log_softmax(dim=-1)
        total += float((wanted.exp() * (wanted - given)).sum())
    return total / len(batch[0]) / math.log(2)


def _blocks(rows: int, first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(first, rows), torch.split(second, rows), strict=True)
