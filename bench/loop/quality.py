"""What each request's answer was worth: every text, teacher-forced, at every depth and in every precision.

One pass for each precision scores all exits on the same tokens, as the profiler and the audits of the server
do (`exits.scoring`); which of them count for a request, the spans of its answer say. Of tokens that leave one
by one, each counts at the first exit that is sure enough of it, with keys and values of the whole model
before it: kinder to that arm than its own are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from helios_contract.serves import REFERENCE, Precision
from helios_server.engine.limits import EngineConfig
from helios_server.engine.memory import load_first_layer
from helios_server.exits.head import BareHead
from helios_server.exits.scoring import TokenScores, score
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile.opened import OpenCandidate
from helios_server.profile.quality import read_texts
from helios_server.profile.streaming import stream_layers
from helios_server.rpc.messages import read_spans

from bench.frontier.figures import share_of_quality
from bench.frontier.front import Key
from bench.frontier.subject import Subject
from bench.loop.replay import Answered
from bench.loop.trace import Texts

Bits = Mapping[str, float]
"""By text."""
Interval = tuple[float, float, float]
_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Worth:
    """depths: bits by layers and precision; tokens: bits where each token leaves by itself, at the first
    exit whose confidence reaches `threshold`; full: layers."""

    depths: Mapping[Key, Bits]
    tokens: Bits
    threshold: float
    full: int

    def percent(self, answered: Sequence[Answered], *, single_tokens: bool = False) -> Interval:
        """Of full depth as published, over all requests that were answered, with the interval in which 95 of
        100 such sets of texts would put it. A text counts as often as it was asked. single_tokens: each left
        where it was sure enough, for which spans grow too long to be told."""
        reference, served = defaultdict[str, float](float), defaultdict[str, float](float)
        for each in answered:
            text = each.arrival.text
            reference[text] += self.depths[self.full, REFERENCE][text]
            served[text] += self.tokens[text] if single_tokens else self._of(each)
        return share_of_quality(list(reference.values()), [served[text] for text in reference])

    def _of(self, each: Answered) -> float:
        """Bits of the text, by what produced the answer; where that changed, in parts of the answer. What
        tells no spans is the whole model."""
        text, spans = each.arrival.text, read_spans(each.stream.spans)
        if not spans:
            return self.depths[self.full, REFERENCE][text]
        end = len(each.stream.output_ids)
        lasted = [after - before for before, after in pairwise([*(span.from_token for span in spans), end])]
        bits = (self.depths[span.served.depth, span.served.precision][text] for span in spans)
        return sum(count * each for count, each in zip(lasted, bits, strict=True)) / end


def measured(subject: Subject, texts: Texts, threshold: float | None, least_percent: float) -> Worth:
    """In this process, with one layer in memory at a time. threshold: of single tokens' confidence; None: the
    least at which they keep `least_percent` of the quality in every domain."""
    distinct = list(dict.fromkeys(text for read in texts.values() for text in read))
    depths: dict[Key, Bits] = {}
    leaving: dict[float, Bits] = {}
    for precision in subject.precisions:
        by_depth, counts = _scores(subject, distinct, precision)
        for depth, scores in by_depth.items():
            depths[depth, precision] = _by_text(distinct, scores.bits, counts)
        if precision == REFERENCE:
            tried = _THRESHOLDS if threshold is None else (threshold,)
            leaving = {each: _by_text(distinct, _leaving(by_depth, each), counts) for each in tried}
    full = subject.depths[0]
    reference = depths[full, REFERENCE]
    kept = [
        each
        for each, bits in leaving.items()
        if all(_percent(reference, bits, read) >= least_percent for read in texts.values())
    ]
    chosen = min(kept, default=max(leaving))
    return Worth(depths, leaving[chosen], chosen, full)


def _percent(reference: Bits, bits: Bits, texts: Sequence[str]) -> float:
    return 100 * sum(reference[text] for text in texts) / sum(bits[text] for text in texts)


@torch.inference_mode()
def _scores(
    subject: Subject, texts: Sequence[str], precision: Precision
) -> tuple[Mapping[int, TokenScores], list[int]]:
    """Of every predicted token, by layers, full depth last; and how many tokens each text has of them."""
    opened: OpenCandidate = subject.opened[0]
    checkpoint = opened.checkpoint
    tokenizer = Tokenizer.open(checkpoint.path)
    read = read_texts(tokenizer, texts, checkpoint.config.context(None))
    backbone = load_first_layer(checkpoint, EngineConfig(dtype=subject.dtype), None, precision)
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    where = read.targets()
    targets = torch.cat(list(read.ids))[where]
    heads = {depth: opened.head(depth, backbone) for depth in opened.exit_layers}
    heads[checkpoint.config.num_layers] = BareHead(backbone)
    found = {
        depth: score(backbone, heads[depth].apply, hidden[where - 1], targets)
        for depth, hidden in stream_layers(backbone, read.ids)
        if depth in heads
    }
    return found, read.predictions


def _leaving(by_depth: Mapping[int, TokenScores], threshold: float) -> torch.Tensor:
    """Bits of each token at the first exit that is sure enough of what it would say."""
    *exits, deepest = (by_depth[depth] for depth in sorted(by_depth))
    bits = deepest.bits.clone()
    for scores in reversed(exits):
        bits = torch.where(scores.confidence >= threshold, scores.bits, bits)
    return bits


def _by_text(texts: Sequence[str], bits: torch.Tensor, counts: Sequence[int]) -> Bits:
    return {text: float(part.sum()) for text, part in zip(texts, bits.split(list(counts)), strict=True)}
