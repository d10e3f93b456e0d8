"""The real model against transformers: teacher-forced on what `generate` wrote, in float32.

Eight prompts; 32 in `make test-long`.
"""

from __future__ import annotations

import pytest
import torch
from helios_server.exits.data import prompts
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.step import whole_sequences
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.sizes import LONG

pytestmark = pytest.mark.long
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 32 if LONG else 8, 24, 24
NEARLY_TIED = 1e-3  # two logits this close may change places


@pytest.fixture(scope="module")
def oracle() -> tuple[Tensor, Tensor]:
    """Prompts with what transformers continued them by: [PROMPTS, 48], and its logits on the whole:
    [PROMPTS, 48, vocab]."""
    path = ensure_smollm2()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = Tokenizer.open(path)
    rows = [tokenizer.encode(text)[:PROMPT_TOKENS] for text in prompts("code", PROMPTS, seed=7)]
    with torch.no_grad():
        written = model.generate(
            torch.tensor(rows),
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=2,
        )
        return written, model(written).logits


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_same_tokens_are_most_likely(oracle: tuple[Tensor, Tensor], dtype: str) -> None:
    written, theirs = oracle
    backbone = Backbone.load(Checkpoint.open(ensure_smollm2()), 30, dtype=dtype)
    step = whole_sequences(backbone.layout, [written.shape[1]] * PROMPTS)
    hidden = backbone.run_layers(backbone.embed(written.flatten(), step.positions), 0, 30, step)
    ours = backbone.logits(backbone.final_norm(hidden)).reshape(theirs.shape)
    top = theirs.topk(2).values
    excused = (top[..., 0] - top[..., 1]) < NEARLY_TIED
    assert ((ours.argmax(-1) == theirs.argmax(-1)) | excused).all()
