"""Streams held against an offline run: the same tokens, at the model, heads and depth that each stream's
trailing metadata names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from helios_server.engine.offline import Shelf, first_difference
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.bundle import BUILTIN
from helios_server.models.cache import cache_root
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.messages import read_spans

from examples.demo.traffic import Stream


def check(streams: Iterable[Stream]) -> None:
    for stream in streams:
        assert stream.output_ids, stream
        prompt = tuple(_tokenizer().encode(stream.prompt, add_special=True))
        spans, greedy = read_spans(stream.spans), SamplingParams(ignore_eos=True)
        place = first_difference(_shelf(), "offline", prompt, greedy, spans, stream.output_ids)
        assert place is None, (place, stream)


@cache
def _shelf() -> Shelf:
    """As the pods compute: on the CPU, in packed float16."""
    uris = {
        json.loads(meta.read_text(encoding="utf-8"))["digest"]: f"builtin://{meta.parent.name}"
        for meta in BUILTIN.glob("*/exits.json")
    }
    return Shelf(uris, "float16", volumes=cache_root())


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.open(ensure_smollm2())
