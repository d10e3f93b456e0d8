"""One file an engine. `PEERS` finds them by name; importing one imports nothing of its engine."""

from __future__ import annotations

from bench.engine.adapter import Peer
from bench.engine.peers import ctranslate2, helios, llamacpp, openvino, transformers, vllm

PEERS: dict[str, Peer] = {
    "helios": helios.PEER,
    "transformers": transformers.PEER,
    "ctranslate2": ctranslate2.PEER,
    "llamacpp": llamacpp.PEER,
    "openvino": openvino.PEER,
    "vllm": vllm.PEER,
}
