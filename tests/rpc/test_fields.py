"""Every field of a request and of the limits does something: it changes what comes out, or is refused by
name.

The tables are compared with the descriptors, so that a field added to a message fails here until it is given
meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor
from helios_proto.v1 import control_pb2 as cpb
from helios_proto.v1 import generation_pb2 as pb

from tests.rpc.pods import EXITS, LAYERS, PROMPT, Served, eventually, generate_request, serving

HOT = {"temperature": 20.0, "seed": 1, "max_tokens": 40}
"""Sampling in which nearly every token is likely, so that what narrows the choice shows."""
HALT = {"temperature": 1000.0, "seed": 15, "max_tokens": 40, "ignore_eos": False}
"""Uniform sampling that meets end-of-sequence long before the end."""

SAMPLING: dict[str, tuple[dict[str, Any], Any]] = {
    "max_tokens": ({}, 5),
    "min_tokens": ({"stop_token_ids": list(range(320))}, 4),
    "temperature": ({"seed": 1}, 20.0),
    "top_k": (HOT, 1),
    "top_p": (HOT, 0.001),
    "min_p": (HOT, 1.0),
    "repetition_penalty": ({}, 50.0),
    "stop_token_ids": ({}, list(range(320))),
    "ignore_eos": (HALT, True),
    "seed": (HOT, 2),
    "logprobs": ({}, True),
}
"""Field -> what else the request holds, and a value that makes a difference."""


def names(descriptor: Descriptor) -> set[str]:
    return {field.name for field in descriptor.fields}


async def everything(pod: Served, **fields: Any) -> tuple[list[int], str, int, str, int]:
    """What a caller can tell apart of an answer."""
    answer = [message async for message in pod.client.generate(generate_request(**fields))]
    complete = answer[-1].complete
    logprobs = sum(len(message.chunk.logprobs) for message in answer)
    return list(complete.output_ids), complete.text, complete.finish_reason, complete.matched_stop, logprobs


async def refused_by(call: Any) -> str:
    """The field that a refusal names."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return (raised.value.details() or "").partition(":")[0]


@pytest.mark.parametrize("field", sorted(SAMPLING))
async def test_a_sampling_parameter_changes_the_answer(pod: Served, field: str) -> None:
    others, value = SAMPLING[field]
    assert await everything(pod, **others) != await everything(pod, **others | {field: value})


async def test_stop_changes_the_answer(pod: Served) -> None:
    ids, text, *_ = await everything(pod)
    assert (await everything(pod, stop=[text[3:4]]))[:2] != (ids, text)


def test_every_sampling_parameter_is_in_the_table() -> None:
    assert names(pb.SamplingParams.DESCRIPTOR) == {*SAMPLING, "stop"}


async def test_every_field_of_a_request_means_something(pod: Served) -> None:
    default = await everything(pod)

    async def by_id() -> bool:
        first = await everything(pod, temperature=20.0, request_id="one")
        return await everything(pod, temperature=20.0, request_id="two") != first

    async def unary() -> bool:
        return len([m async for m in pod.client.generate(generate_request(stream=False))]) == 1

    meaning = {
        "request_id": by_id(),  # the seed, when none is given, and what Abort names
        "model": _is(refused_by(pod.generate(model="other")), "model"),
        "text": _differs(everything(pod, text="Another prompt"), default),
        "tokenized": _differs(everything(pod, tokenized=pb.TokenizedInput(input_ids=[1, 2])), default),
        "chat": _differs(everything(pod, chat=pb.ChatInput(messages=[{"role": "user"}])), default),
        "sampling_params": _differs(everything(pod, max_tokens=3), default),
        "exit_policy": _differs(everything(pod, exit_policy=pb.ExitPolicy(layer_budget=2)), default),
        "stream": unary(),
        "cache_salt": _is(refused_by(pod.generate(cache_salt="s" * 257)), "cache_salt"),
    }
    assert names(pb.GenerateRequest.DESCRIPTOR) == set(meaning)
    assert names(pb.ExitPolicy.DESCRIPTOR) == {"layer_budget"}
    assert {name: await holds for name, holds in meaning.items()} == dict.fromkeys(meaning, True)


async def test_every_field_of_tokenized_input_means_something(tiny: Path) -> None:
    """The ids are what is run; the text that they stand for is what live prompts keep."""
    text = "The text that the ids stand for"
    async with serving(tiny, live_prompts=1) as pod:
        given = pb.TokenizedInput(input_ids=range(65, 85), original_text=text)
        await pod.generate(tokenized=given)
        kept = await pod.control.GetPrompts(cpb.GetPromptsRequest())
        assert list(kept.prompts) == [text]
        await pod.set_limits(live_prompts=1)  # so that a new set is due
        await pod.generate(tokenized=pb.TokenizedInput(input_ids=[*range(65, 85)]))
        decoded = await pod.control.GetPrompts(cpb.GetPromptsRequest())
        assert decoded.prompts != kept.prompts
    assert names(pb.TokenizedInput.DESCRIPTOR) == {"original_text", "input_ids"}


async def test_every_field_of_the_limits_means_something(tiny: Path, heads: Path) -> None:
    bundle = f"file://{heads}"

    async with serving(tiny, layer_budget=EXITS[1]) as pod:

        async def after(look: Any, **changes: Any) -> Any:
            await pod.set_limits(**changes)
            return await look()

        async def exit_tokens() -> list[int]:
            return list((await pod.generate()).output_ids)

        async def max_rows() -> int:
            return (await pod.load()).max_batch_size

        async def queue() -> int:
            return (await pod.load()).max_queue_size

        async def revision() -> str:
            return (await pod.info()).model_revision

        async def breaches() -> int:
            return (await pod.generate()).exit_stats.breaches

        async def frozen() -> int:
            await pod.generate()
            return (await pod.telemetry()).prompts.prompts

        bare = await exit_tokens()
        meaning = {
            "generation": await refused_by(pod.set_limits(generation=1)) == "limits.generation",
            "candidate": (await after(pod.info, candidate="renamed")).candidate == "renamed",
            "max_batch_size": await after(max_rows, max_batch_size=3) == 3,
            "max_queue_size": await after(queue, max_queue_size=5) == 5,
            "memory_mib": await refused_by(pod.set_limits(memory_mib=1)) == "limits.memory_mib",
            "exit_layers": list((await after(pod.info, exit_layers=[1, 3, 4])).exit_layers) == [1, 3],
            "layer_budget": (await after(pod.info, layer_budget=3)).layer_budget == 3,
            "live_prompts": await after(frozen, live_prompts=1) == 1,
            "breach_threshold": await breaches() == 0 and await after(breaches, breach_threshold=1.0) == 8,
            "exit_threshold": await refused_by(pod.set_limits(exit_threshold=0.5)) == "limits.exit_threshold",
            "exits_digest": "digest"
            in await _words(pod.set_limits(exits_uri=bundle, exits_digest="sha256:0")),
            "exits_uri": await after(exit_tokens, layer_budget=4, exit_layers=EXITS, exits_uri=bundle)
            != bare,
            "tokens_per_request": await tight_rows(pod, 64) > 2 * await tight_rows(pod, 512),
            **{
                way: await refused_by(pod.set_limits(**{way: "another"})) == f"limits.{way}"
                for way in ("exit_mode", "weight_dtype", "kv_cache_dtype")
            },
            "model_uri": "no directory" in await _words(pod.set_limits(model_uri="file:///nowhere")),
            "model_revision": await after(revision, model_revision="another") == "another",
        }
    elsewhere = {"audit", "task_probe"}  # below, and in test_prober.py
    assert names(cpb.Limits.DESCRIPTOR) == {*meaning, *elsewhere}
    assert meaning == dict.fromkeys(meaning, True)


async def test_every_field_of_the_audit_means_something(tiny: Path, heads: Path) -> None:
    async with serving(tiny, layer_budget=EXITS[0]) as pod:

        async def audited() -> cpb.Telemetry:
            for _ in range(6):
                await pod.generate(f"{PROMPT}, and one more of them to be scored")
            await eventually(lambda: _audits(pod))
            return await pod.telemetry()

        async def alarms() -> set[str]:
            for _ in range(30):
                await pod.generate(f"{PROMPT}, and one more of them to be scored", max_tokens=1)
            return {alarm.kind for alarm in (await pod.telemetry()).alarms}

        await pod.generate()
        assert not (await pod.telemetry()).audits
        bundles = [cpb.Bundle(candidate="noise", uri=f"file://{heads}"), cpb.Bundle(candidate="bare")]
        await pod.set_limits(audit=cpb.Audit(percent=100, bundles=bundles))
        now = await audited()
        digests = {bundle.digest for bundle in now.limits.audit.bundles}
        assert {bits.digest for row in now.audits for bits in row.exits} == digests == {"", *digests}
        assert len(digests) == 2

        far = cpb.Baseline(mean=0.0001, standard_deviation=0.0001)
        await pod.set_limits(audit=cpb.Audit(percent=100, bundles=bundles, confidence=far))
        assert await alarms() == {"Confidence"}
        await pod.set_limits(audit=cpb.Audit(percent=100, bundles=bundles, quality=far))
        await audited()
        await eventually(lambda: _alarmed(pod, "Audit"))
    assert names(cpb.Audit.DESCRIPTOR) == {"percent", "bundles", "quality", "confidence"}
    assert names(cpb.Bundle.DESCRIPTOR) == {"candidate", "uri", "digest"}
    assert names(cpb.Baseline.DESCRIPTOR) == {"mean", "standard_deviation"}


async def _audits(pod: Served) -> bool:
    return len((await pod.telemetry()).audits) >= 6


async def _alarmed(pod: Served, kind: str) -> bool:
    await pod.generate(f"{PROMPT}, and one more of them to be scored", max_tokens=1)
    return kind in {alarm.kind for alarm in (await pod.telemetry()).alarms}


async def _is(value: Any, expected: object) -> bool:
    return bool(await value == expected)


async def _differs(value: Any, from_what: object) -> bool:
    return bool(await value != from_what)


async def tight_rows(pod: Served, tokens_per_request: int) -> int:
    """Rows that fit when the memory limit leaves little beside the model."""
    now = (await pod.telemetry()).capacity
    held = now.process_start_bytes + now.weight_bytes + now.activation_peak_bytes
    memory_mib = held // 2**20 + 16
    changed = await pod.set_limits(
        memory_mib=memory_mib, max_batch_size=0, tokens_per_request=tokens_per_request
    )
    return changed.capacity.max_batch_size


async def _words(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.details() or ""


def test_full_depth_is_more_than_any_exit() -> None:
    assert max(EXITS) < LAYERS
