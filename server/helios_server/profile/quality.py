"""Quality rows: what each exit of each bundle of one backbone is worth on the user's prompts.

Called by `command.py`. One teacher-forced pass at full depth for each precision measures all of them on the
same tokens, with one decoder layer resident at a time; the first is the reference precision's, with which all
others agree or not. Texts are held in memory only and reach neither the document nor a log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from helios_contract import results
from helios_contract.results import CandidateQuality, Quality
from helios_contract.serves import REFERENCE, Precision
from torch import Tensor

from helios_server.engine.host_memory import anonymous_bytes
from helios_server.engine.limits import EngineConfig
from helios_server.engine.memory import load_first_layer
from helios_server.errors import HeliosError, InvalidRequest, OutOfMemoryBudget
from helios_server.models.backbone import Backbone
from helios_server.models.tokenizer import Tokenizer
from helios_server.planning.memory import MIB
from helios_server.profile.exits import ExitQuality, Measured, Texts, measure_exits
from helios_server.profile.generated import check_generated
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.precisions import Omissions
from helios_server.profile.streaming import GROUP_TOKENS
from helios_server.progress import Progress
from helios_server.telemetry.prompts import prompts_digest


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """How to measure. memory_mib: the process's limit, None for none; max_context: tokens to be served, None
    for the model's; generated: check text that the model writes in the reference precision too, and tell of
    it in the log."""

    device: str = "cpu"
    dtype: str | None = None
    memory_mib: int | None = None
    max_context: int | None = None
    generated: bool = False


@torch.inference_mode()
def measure_quality(
    candidates: Sequence[OpenCandidate],
    prompts: Sequence[str],
    settings: QualitySettings,
    progress: Progress,
    precisions: Sequence[Precision] = (REFERENCE,),
) -> Quality:
    """Of candidates that share one backbone: a row for each, in the reference precision and in the others;
    those that cannot be had are left out."""
    checkpoint = candidates[0].checkpoint
    tokenizer = Tokenizer.open(checkpoint.path)
    texts = read_texts(tokenizer, prompts, checkpoint.config.context(settings.max_context))
    scored_bytes = [tokenizer.bytes_of(ids[1:].tolist()) for ids in texts.ids]
    progress(f"{len(prompts)} prompts, {texts.scored_tokens} tokens, {checkpoint.config.num_layers} layers")
    others = [precision for precision in dict.fromkeys(precisions) if precision != REFERENCE]
    layers = checkpoint.config.num_layers

    def score(precision: Precision, reference: Tensor | None, before: int) -> Measured:
        passed = progress.part(before * layers, (1 + len(others)) * layers)
        return score_texts(candidates, tokenizer, texts, settings, progress, precision, reference, passed)

    measured = score(REFERENCE, None, 0)
    reference, omitted = measured.top, Omissions(progress)
    rows = [_row(opened, REFERENCE, measured) for opened in candidates]
    for before, precision in enumerate(others, 1):
        try:
            measured = score(precision, reference, before)
        except HeliosError as error:
            omitted.add(precision, error)
            continue
        rows += [_row(opened, precision, measured) for opened in candidates]
    return Quality(
        prompts_digest=prompts_digest(prompts),
        prompts=len(prompts),
        tokens=texts.scored_tokens,
        bytes=sum(scored_bytes),
        prompt_bytes=tuple(scored_bytes),
        rows=tuple(rows),
        left_out=omitted.named,
    )


def score_texts(
    candidates: Sequence[OpenCandidate],
    tokenizer: Tokenizer,
    texts: Texts,
    settings: QualitySettings,
    progress: Callable[[str], None],
    precision: Precision,
    reference: Tensor | None,
    passed: Callable[[int], None] = lambda _: None,
) -> Measured:
    """One pass in one precision, whose model is gone when this returns. reference: as `measure_exits` takes
    it. Inference mode is the caller's."""
    checkpoint = candidates[0].checkpoint
    config = EngineConfig(device=settings.device, dtype=settings.dtype, max_context=settings.max_context)
    backbone = load_first_layer(checkpoint, config, settings.memory_mib, precision)
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    heads = {
        opened.candidate.name: {layer: opened.head(layer, backbone) for layer in opened.exit_layers}
        for opened in candidates
    }
    _check_memory(backbone, texts, settings.memory_mib)
    if reference is not None:
        progress(f"the same in {precision}")
    measured = measure_exits(backbone, heads, texts, progress, reference, passed)
    if settings.generated and reference is None:
        context = checkpoint.config.context(settings.max_context)
        check_generated(backbone, heads, texts, settings.memory_mib, context, progress)
    return measured


def _row(opened: OpenCandidate, precision: Precision, measured: Measured) -> CandidateQuality:
    name = opened.candidate.name
    exits = tuple(map(_in_integers, measured.exits[name]))
    return CandidateQuality(
        name, opened.exits_digest, exits, precision.weight_dtype, precision.kv_cache_dtype
    )


def read_texts(tokenizer: Tokenizer, prompts: Sequence[str], max_context: int) -> Texts:
    """Prompts as the model reads them, without a begin token; all tokens but the first are predicted.

    Refuses a prompt that is longer than the model's context.
    """
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    for index, tokens in enumerate(ids):
        if not 1 <= len(tokens) <= max_context:
            problem = f"has {len(tokens)} tokens, the model reads 1 to {max_context}"
            fix = "Change the prompt, remove the candidate, or raise --max-context (limits.maxContextTokens)"
            raise InvalidRequest(f"prompts[{index}]", problem, fix)
    texts = Texts(tuple(torch.tensor(tokens, dtype=torch.int64) for tokens in ids), (1,) * len(ids))
    if not texts.scored_tokens:
        raise InvalidRequest("prompts", "have one token each, nothing to predict", "Give longer prompts")
    return texts


def _in_integers(exit_: ExitQuality) -> results.ExitQuality:
    return results.ExitQuality(
        layer=exit_.layer,
        millibits=exit_.millibits,
        agreement_percent=round(100 * exit_.agreement),
        first_agrees_percent=round(100 * exit_.first_agrees),
        ece_milli=round(1000 * exit_.calibration_error),
        mean_confidence_milli=round(1000 * exit_.mean_confidence),
        prompt_millibits=exit_.prompt_millibits,
    )


def _check_memory(backbone: Backbone, texts: Texts, memory_mib: int | None) -> None:
    """What is resident now, and what the pass adds: a second layer beside the first, as stored and as loaded,
    the hidden states, a group's way through the MLP and a block's logits."""
    if memory_mib is None or backbone.numerics.device.type != "cpu":
        return
    config, width = backbone.config, backbone.numerics.activations.itemsize
    hidden = sum(len(ids) for ids in texts.ids) * config.hidden_size * width
    group = GROUP_TOKENS * (3 * config.intermediate_size + 4 * config.hidden_size) * width
    need = anonymous_bytes() + 2 * backbone.layer_bytes + 2 * hidden + group
    if need > memory_mib * MIB:
        raise OutOfMemoryBudget(
            "memory-mib",
            f"measuring quality takes {need // MIB + 1} MiB, {memory_mib} are given",
            "Raise it, or give fewer or shorter prompts",
        )
