"""Turns a request into a sequence, or refuses it by the name of the field at fault.

Called by `Engine.submit` in the caller's thread. It must change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

from helios_server.engine import exit_mode
from helios_server.engine.request import GenerationRequest
from helios_server.engine.sampling import DEFAULT_MAX_TOKENS
from helios_server.engine.sequence import Sequence
from helios_server.engine.serving import Serving
from helios_server.errors import Draining, InvalidRequest, QueueFull
from helios_server.planning.memory import largest_request

_QUEUED_POOLS = 8
"""Prompts that wait fill the KV cache so often, at most: whoever comes last waits for eight turns of it."""
MAX_SALT = 256
"""Characters of a cache_salt."""


def sequence_for(request: GenerationRequest, serving: Serving, ordinal: int) -> Sequence:
    """Checks a request against what serves. Raises InvalidRequest; Draining, where a retry will do."""
    _check_tokenizer(request, serving)
    _check_prompt(request, serving)
    _check_depth(request, serving)
    _check_salt(request)
    return Sequence(
        request.request_id,
        request.prompt_ids,
        request.sampling,
        _max_tokens(request, serving),
        request.depth,
        ordinal,
        request.cache_salt,
    )


def check_queue(
    waiting: Many[int], prompt: int, serving: Serving, most_tokens: int | None, seconds: float
) -> None:
    """Raises QueueFull when prompts of these tokens wait, one of `prompt` tokens comes, and the limits allow
    no more. A prompt that finds nobody waiting may be as long as it fits. seconds: until a place is likely to
    be free.
    """
    limit = serving.limits.max_queue_size
    if len(waiting) >= limit:
        raise QueueFull("max_queue_size", f"{limit} requests are waiting", "Try again later", seconds)
    queued, most = sum(waiting), most_tokens or _QUEUED_POOLS * serving.kv_tokens
    if waiting and queued + prompt > most:
        problem = f"prompts of {queued} tokens are waiting, of at most {most}"
        raise QueueFull("max_queue_tokens", problem, "Try again later", seconds)


def _check_tokenizer(request: GenerationRequest, serving: Serving) -> None:
    """A text that was read with another model's tokenizer, a moment before the exchange, is read again."""
    if request.tokenizer_digest and request.tokenizer_digest != serving.model.tokenizer_digest:
        raise Draining("model", "has been exchanged for one with another tokenizer", "Try again")


def _check_prompt(request: GenerationRequest, serving: Serving) -> None:
    vocabulary = serving.vocabulary
    if not request.prompt_ids:
        raise InvalidRequest("input", "the prompt is empty", "Send at least one token")
    outside = [token for token in request.prompt_ids if not 0 <= token < vocabulary]
    if outside:
        problem = f"{outside[0]} is outside the vocabulary of {vocabulary} tokens"
        raise InvalidRequest("tokenized.input_ids", problem, "Tokenise with this model's tokenizer")
    wrong = [token for token in request.sampling.stop_token_ids if token >= vocabulary]
    if wrong:
        problem = f"{wrong[0]} is outside the vocabulary of {vocabulary} tokens"
        raise InvalidRequest("sampling_params.stop_token_ids", problem, "Use ids of this model's tokenizer")


def _check_depth(request: GenerationRequest, serving: Serving) -> None:
    exit_mode.check_request(serving.limits, request.depth)
    legal = serving.depths
    if request.depth and request.depth not in legal:
        problem = f"{request.depth} is not a depth served here"
        raise InvalidRequest("exit_policy.layer_budget", problem, f"Use 0 or one of {list(legal)}")


def _check_salt(request: GenerationRequest) -> None:
    length = len(request.cache_salt)
    if length > MAX_SALT:
        problem = f"has {length} characters"
        raise InvalidRequest("cache_salt", problem, f"Give at most {MAX_SALT}, for example a hash")


def check_length(prompt: int, serving: Serving) -> int:
    """Returns how many tokens may follow a prompt of so many. Raises InvalidRequest where there is no room
    for one."""
    room = largest_request(serving.context, serving.kv_tokens) - prompt
    if room < 1:
        problem = f"the prompt of {prompt} tokens leaves no room in {_held_by(serving)}"
        raise InvalidRequest("input", problem, "Shorten it")
    return room


def _held_by(serving: Serving) -> str:
    if largest_request(serving.context, serving.kv_tokens) < serving.context:
        return f"the KV cache of {serving.kv_tokens} tokens"
    return f"the context of {serving.context} tokens"


def _max_tokens(request: GenerationRequest, serving: Serving) -> int:
    """New tokens that the request may have; unless the caller says, as many as there is room for."""
    prompt, asked = len(request.prompt_ids), request.sampling.max_tokens
    room = check_length(prompt, serving)
    if asked is None:
        return min(DEFAULT_MAX_TOKENS, room)
    if asked > room:
        problem = f"{asked} new tokens after a prompt of {prompt} exceed {_held_by(serving)}"
        raise InvalidRequest("sampling_params.max_tokens", problem, f"Ask for at most {room}")
    return asked
