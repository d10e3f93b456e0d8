"""A request of tensors and parameters as what the engine takes.

Called by `service`. Whatever is given either reaches the engine, or is neutral, or refuses the request by its
name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from helios_server.engine.sampling import SamplingParams
from helios_server.engine.serving import Model
from helios_server.errors import HeliosError, InvalidRequest, NotFound
from helios_server.rpc import conversation
from helios_server.rpc.fields import Fields
from helios_server.rpc.oip import names
from helios_server.rpc.pod import Pod

_TOKENS = 16
_TEMPERATURE = 1.0
"""vLLM's defaults, as the names are; those of helios.v1 are others."""
_OFF = -1
"""How top_k is switched off, and end_id."""
_SEEDS = 1 << 64
_WORDS = {
    "input": names.TEXT,
    "tokenized.input_ids": names.TEXT,
    "exit_policy.layer_budget": names.DEPTH,
    "stop": "stop_words",
    "model": "model_name",
}
"""What the engine calls a field, to what this protocol does."""


@dataclass(frozen=True)
class Asked:
    """One request. depth: layers, 0 for the budget; echo: its text comes before the answer's; outputs: by
    name; end_id: what it takes for the model's end, None: whatever that is; empty_final: an empty answer
    comes last; raw: the form of its tensors, and of the answer's."""

    text: str
    sampling: SamplingParams
    depth: int
    cache_salt: str
    stream: bool
    echo: bool
    outputs: tuple[str, ...]
    end_id: int | None
    empty_final: bool
    raw: bool

    def sampling_for(self, model: Model) -> SamplingParams:
        """Once it is known which tokens end an answer. Raises InvalidRequest."""
        ends = model.config.eos_token_ids
        if self.end_id == _OFF:
            return replace(self.sampling, ignore_eos=True)
        if self.end_id is not None and self.end_id not in ends:
            ids = " or ".join(map(str, ends)) or "nothing"
            fix = f"Leave it out, or give {ids}, or {_OFF} for no end; stop_token_ids adds ends"
            raise InvalidRequest("end_id", f"{self.end_id} ends no answer of this model", fix)
        return self.sampling


def check_model(pod: Pod, model: str, version: str) -> None:
    """Raises NotFound for another than the one version of the one model; "" is that."""
    conversation.check_model(pod, model)
    if version not in ("", names.VERSION):
        fix = f"Ask for {names.VERSION}, or leave it empty"
        raise NotFound("model_version", f"{version} is not served here", fix)


@contextmanager
def in_words_of(words: Mapping[str, str]) -> Iterator[None]:
    """Errors within name their field as the request did. words: names of `names.HEEDED` to those used."""
    try:
        yield
    except HeliosError as error:
        field = error.field.removeprefix("sampling_params.")
        field = _WORDS.get(field, field)
        raise _renamed(error, words.get(field, field)) from None


def _renamed(error: HeliosError, field: str) -> HeliosError:
    """The same, but for the field."""
    if field == error.field:
        return error
    told = type(error).__new__(type(error))  # its other words, whatever its kind has
    vars(told).update(vars(error) | {"field": field})
    told.args = (f"{field}: {error.problem}; {error.fix}",)
    return told


def read(values: Mapping[str, Any], outputs: tuple[str, ...], streaming: bool, raw: bool) -> Asked:
    """values: by `names.HEEDED`; outputs: those named; streaming: whether the call can have many answers.
    Raises InvalidRequest."""
    fields = Fields(values)
    fields.admit(frozenset({*names.HEEDED, names.EMPTY_FINAL}), {**names.NEUTRAL, **names.RESERVED})
    stream, outputs = fields.flag(names.STREAM), _outputs(fields, outputs)
    if stream and not streaming:
        fix = "Call ModelStreamInfer, or leave it out"
        raise fields.wrong(names.STREAM, "is true, and ModelInfer has one answer", fix)
    depth = fields.whole(names.DEPTH) or 0
    if depth < 0:
        raise fields.wrong(names.DEPTH, f"{depth} is no depth", "Give a number of layers, 0 for the budget")
    return Asked(
        text=_text(fields),
        sampling=_sampling(fields, not names.LOGPROBS.isdisjoint(outputs)),
        depth=depth,
        cache_salt=fields.text("cache_salt"),
        stream=stream,
        echo=_echo(fields, stream),
        outputs=outputs,
        end_id=fields.whole("end_id"),
        empty_final=fields.flag(names.EMPTY_FINAL),
        raw=raw,
    )


def _text(fields: Fields) -> str:
    text = fields.text(names.TEXT)
    if not text:
        problem = "is empty" if fields.has(names.TEXT) else "is missing"
        raise fields.wrong(names.TEXT, problem, "Give the text to continue, a tensor of BYTES")
    return text


def _outputs(fields: Fields, named: tuple[str, ...]) -> tuple[str, ...]:
    asked = [output for flag, outputs in names.RETURNS.items() if fields.flag(flag) for output in outputs]
    return tuple(dict.fromkeys([*(named or (names.TEXT_OUTPUT,)), *asked]))


def _echo(fields: Fields, stream: bool) -> bool:
    """As the vLLM backend has it."""
    exclude = fields.flag("exclude_input_in_output")
    if stream and fields.has("exclude_input_in_output") and not exclude:
        problem = "is false, and what streams is what follows the text"
        raise fields.wrong("exclude_input_in_output", problem, "Leave it out, or give true")
    return not stream and not exclude


def _sampling(fields: Fields, logprobs: bool) -> SamplingParams:
    most, temperature = fields.whole("max_tokens"), fields.number("temperature")
    top_k, top_p, seed = fields.whole("top_k") or 0, fields.number("top_p"), fields.whole("seed")
    if top_p is None or (top_p == 0 and top_k == 1):  # TensorRT-LLM's client: the likeliest token
        top_p = 1.0
    if seed is not None and -_SEEDS // 2 <= seed < 0:
        seed += _SEEDS  # a signed number of 64 bits is as good a seed
    min_p, penalty = fields.number("min_p"), fields.number("repetition_penalty")
    return SamplingParams(
        max_tokens=_TOKENS if most is None else most,
        min_tokens=fields.whole("min_tokens") or 0,
        temperature=_TEMPERATURE if temperature is None else temperature,
        top_k=0 if top_k == _OFF else top_k,
        top_p=top_p,
        min_p=min_p or 0.0,
        repetition_penalty=1.0 if penalty is None else penalty,
        stop=tuple(word for word in fields.texts("stop_words") if word),
        stop_token_ids=fields.wholes("stop_token_ids"),
        ignore_eos=fields.flag("ignore_eos"),
        seed=seed,
        logprobs=logprobs,
    )
