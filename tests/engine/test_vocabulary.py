"""Ids that no answer may hold: those without a token, however likely, and end tokens that are no ids."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.engine.limits import EngineConfig
from helios_server.engine.request import FinishReason, TokensEvent
from helios_server.engine.sampling import SamplingParams
from helios_server.errors import HeliosError

from tests.checkpoints import EOS_ID, VOCAB, make_checkpoint
from tests.engine.helpers import Stream, prompt_of, running, send
from tests.engine.oracle import Library
from tests.models.changes import change_config, change_tensors, tensors_of

KNOWN = 300
HOLE = range(60, 90)
HEAD = "lm_head.weight"
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.0, "seed": 5},
    "all of them": {"temperature": 3.0, "top_k": VOCAB, "seed": 6},
    "nucleus": {"temperature": 1.5, "top_p": 0.99, "min_p": 0.001, "seed": 7},
    "penalised": {"repetition_penalty": 1.7},
    "not too short": {"min_tokens": 20, "stop_token_ids": (HOLE[0], VOCAB - 1)},
}
for _options in SAMPLINGS.values():
    _options |= {"max_tokens": 24, "ignore_eos": True, "logprobs": True}


def known(token: int) -> bool:
    return token < KNOWN and token not in HOLE


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer ends below the head and has a hole; what it lacks would win nearly every choice."""
    path = make_checkpoint(tmp_path_factory.mktemp("padded") / "model", layers=2, tied=False, seed=4)
    file = path / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = {token: index for token, index in vocab.items() if known(index)}
    content["model"]["merges"] = []
    file.write_text(json.dumps(content))
    head = tensors_of(path)[HEAD]
    head[[token for token in range(VOCAB) if not known(token)]] *= 30
    change_tensors(path, {HEAD: head})
    return path


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_what_the_tokenizer_lacks_is_never_chosen(padded: Path, dtype: str) -> None:
    prompt = (HOLE[0], 1, 2, VOCAB - 1, 3)
    with running(padded, EngineConfig(dtype=dtype, max_context=256)) as engine:
        streams = {name: send(engine, prompt, **options) for name, options in SAMPLINGS.items()}
        ends = {name: stream.result() for name, stream in streams.items()}
        logprobs = [value for event in tokens_of(*streams.values()) for value in event.logprobs]
    assert all(math.isfinite(value) and value > -50 for value in logprobs)
    for name, end in ends.items():
        assert all(known(token) for token in end.output_ids), name
        assert len(end.output_ids) >= 20
        assert 0 < end.mean_confidence <= 1
    if dtype == "float64":
        library = Library(dtype)
        for name, end in ends.items():
            library.check(prompt, end, SamplingParams(**SAMPLINGS[name]))


def tokens_of(*streams: Stream) -> list[TokensEvent]:
    return [event for stream in streams for event in stream.events if isinstance(event, TokensEvent)]


def test_a_tokenizer_that_has_none_of_the_ids_is_refused(tmp_path: Path) -> None:
    file = make_checkpoint(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = {token: index + VOCAB for token, index in content["model"]["vocab"].items()}
    content["model"] |= {"vocab": vocab, "merges": []}
    for token in content["added_tokens"]:
        token["id"] += VOCAB
    file.write_text(json.dumps(content))
    with pytest.raises(HeliosError, match="none of the 320 ids"), running(tmp_path):
        pass


@pytest.mark.parametrize("ends", [VOCAB, -1, [999], [-1, EOS_ID, VOCAB]])
def test_end_tokens_outside_the_vocabulary_harm_nobody(tmp_path: Path, ends: object) -> None:
    """-1 would be the last token of the vocabulary, which the model prefers here."""
    path = make_checkpoint(tmp_path, layers=2, tied=False)
    head = tensors_of(path)[HEAD]
    change_tensors(path, {HEAD: torch.cat([head[:-1], 20 * head[-1:]])})
    change_config(path, eos_token_id=ends)
    with running(path) as engine:
        end = send(engine, prompt_of(9), max_tokens=8, min_tokens=1).result()
        free = send(engine, prompt_of(9), max_tokens=8, ignore_eos=True).result()
    assert end.output_ids[0] == free.output_ids[0]
    assert len(end.output_ids) == 8 or end.output_ids[-1] == EOS_ID


def test_end_tokens_of_generation_config_end_an_answer(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, layers=2)
    with running(path) as engine:
        plain = send(engine, prompt_of(9), max_tokens=16, ignore_eos=True).result().output_ids
    last = next(token for token in plain if token != plain[0])
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS_ID, last]}))
    with running(path) as engine:
        end = send(engine, prompt_of(9), max_tokens=16).result()
    assert (end.reason, end.output_ids) == (FinishReason.STOP, plain[: plain.index(last) + 1])
