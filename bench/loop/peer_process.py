"""The process that runs `transformers`: `python -m bench.loop.peer_process MODEL DTYPE ROWS TOKENS`.

Started by `peer.py`. It reads requests as JSON lines (`id`, `ids`, `new`) and answers with lines as tokens
come (`id`, `at` on the monotonic clock, `tokens` so far, `ended`, `error`); the first line says how it
batches. That is transformers' own continuous batching; where it does not run, static batches: of whoever
waits when the one before has ended.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from bench.engine.child import answers_alone

_TRIED_SECONDS = 60.0
_PAGE = 32
_STEP_TOKENS = 512
Request = dict[str, Any]


def main() -> None:
    model_path, dtype, rows, tokens = sys.argv[1:5]
    answers = answers_alone()

    def tell(**told: Any) -> None:
        print(json.dumps({"at": time.monotonic(), **told}), file=answers, flush=True)

    model = AutoModelForCausalLM.from_pretrained(
        model_path, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    try:
        serving = Continuous(model, int(rows), int(tokens), tell)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        tell(batching=f"static batches of at most {rows} rows, for continuous batching failed here: {why}")
        _static(model, int(rows), requests, tell)
        return
    tell(batching="transformers' continuous batching")
    while (request := requests.get()) is not None:
        serving.add(request)
    serving.stop()


def _read(requests: queue.SimpleQueue[Request | None]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    requests.put(None)


class Continuous:
    """Raises whatever the first request meets: it is tried before anything is promised."""

    def __init__(self, model: Any, rows: int, tokens: int, tell: Any) -> None:
        config = ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=rows * -(-(tokens + _PAGE) // _PAGE),
            max_batch_tokens=_STEP_TOKENS,
            max_requests_per_batch=rows,
            allow_block_sharing=False,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=tokens)
        self._manager = model.init_continuous_batching(greedy, config)
        self._manager.start()
        self._tell = tell
        self._try()
        threading.Thread(target=self._answer, daemon=True).start()

    def _try(self) -> None:
        self._manager.add_request([1, 2, 3], "tried", max_new_tokens=2, eos_token_id=-1)
        end = time.monotonic() + _TRIED_SECONDS
        while time.monotonic() < end:
            found = self._manager.get_result(timeout=1)
            if found is not None and (found.error or len(found.generated_tokens) == 2):
                if found.error:
                    raise RuntimeError(found.error)
                return
            if not self._manager.is_running():
                raise RuntimeError(str(self._manager.background_thread_status.fatal_error))
        raise RuntimeError(f"two tokens did not come within {_TRIED_SECONDS:.0f} s")

    def add(self, request: Request) -> None:
        self._manager.add_request(
            request["ids"], request["id"], max_new_tokens=request["new"], streaming=True, eos_token_id=-1
        )

    def _answer(self) -> None:
        for found in self._manager:
            told = {"id": found.request_id, "tokens": len(found.generated_tokens)}
            self._tell(**told, ended=found.is_finished(), error=found.error or "")

    def stop(self) -> None:
        self._manager.stop(block=True, timeout=60)


def _static(model: Any, rows: int, requests: queue.SimpleQueue[Request | None], tell: Any) -> None:
    for batch in _batches(requests, rows):
        longest = max(len(request["ids"]) for request in batch)
        ids = torch.tensor([[0] * (longest - len(r["ids"])) + r["ids"] for r in batch])
        mask = torch.tensor([[0] * (longest - len(r["ids"])) + [1] * len(r["ids"]) for r in batch])
        new = max(request["new"] for request in batch)
        config = GenerationConfig(do_sample=False, pad_token_id=0, min_new_tokens=new, max_new_tokens=new)
        with torch.inference_mode():
            model.generate(ids, attention_mask=mask, generation_config=config, streamer=_Told(batch, tell))


def _batches(requests: queue.SimpleQueue[Request | None], rows: int) -> Iterator[list[Request]]:
    """Of those that wait, when there are any."""
    while (first := requests.get()) is not None:
        batch = [first]
        while len(batch) < rows and not requests.empty():
            if (request := requests.get()) is None:
                requests.put(None)  # for the next look: this is the last batch
                break
            batch.append(request)
        yield batch


class _Told(BaseStreamer):
    """Tells of each step of a static batch; the first thing that comes is the prompts."""

    def __init__(self, batch: list[Request], tell: Any) -> None:
        self._batch = batch
        self._tell = tell
        self._steps = itertools.count()

    def put(self, value: Any) -> None:
        if step := next(self._steps):
            for request in self._batch:
                if step <= request["new"]:
                    self._tell(id=request["id"], tokens=step, ended=step == request["new"], error="")

    def end(self) -> None:
        pass


if __name__ == "__main__":
    main()
