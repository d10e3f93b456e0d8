"""A task's prompt as the model reads it: as one that a client sends would be.

Called by profiling and by the prober of a serving pod. It must not ask.
"""

from __future__ import annotations

from helios_contract.tasks import Task

from helios_server.errors import HeliosError, InvalidRequest
from helios_server.models.tokenizer import Tokenizer


def ids_of(tokenizer: Tokenizer, task: Task, field: str) -> tuple[int, ...]:
    """A prompt as /v1/completions reads it, a chat as /v1/chat/completions. InvalidRequest, under `field`,
    for what this model cannot be asked."""
    ids = tuple(_read(tokenizer, task, field))
    if not ids:
        part = "messages" if task.messages else "prompt"
        raise InvalidRequest(f"{field}.{part}", "is no token of this model", "Write a text")
    return ids


def _read(tokenizer: Tokenizer, task: Task, field: str) -> list[int]:
    if not task.messages:
        return tokenizer.encode(task.prompt or "", add_special=True)
    from helios_server.models.chat_text import render  # transformers: for chats alone

    try:
        text = render(
            tokenizer.chat, [{"role": each.role, "content": each.content} for each in task.messages]
        )
    except HeliosError as error:
        fix = "Write it as a prompt, or use a model that chats"
        raise InvalidRequest(f"{field}.messages", error.problem, fix) from None
    return tokenizer.encode(text, add_special=False)
