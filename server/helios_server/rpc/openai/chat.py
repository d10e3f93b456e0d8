"""A chat's messages as the text that the model's own template makes of them.

Called by `requests`. `conversation` has them rendered. It must not choose a template.
"""

from __future__ import annotations

from dataclasses import dataclass

from helios_server.engine.serving import Model
from helios_server.models.chat_text import ROLES, NoTemplate
from helios_server.models.json_file import shown
from helios_server.rpc import conversation
from helios_server.rpc.conversation import Prompt
from helios_server.rpc.fields import Fields, Neutral

__all__ = ["Chat", "NoTemplate"]

_HEEDED = frozenset({"role", "content", "name"})
_NOTHING, _EMPTY = Neutral(), Neutral(([],))
_NEUTRAL = {
    "annotations": _EMPTY,
    "audio": _NOTHING,
    "function_call": _NOTHING,
    "refusal": _NOTHING,
    "tool_call_id": _NOTHING,
    "tool_calls": _EMPTY,
}
"""What an answer holds, and clients send back with it."""


@dataclass(frozen=True)
class Chat:
    messages: tuple[dict[str, str], ...]
    """role, content, and name where it is given."""

    @classmethod
    def read(cls, given: Fields) -> Chat:
        listed = given.objects("messages")
        if not listed:
            raise given.wrong("messages", "is empty", "Give at least one message")
        return cls(tuple(_message(each) for each in listed))

    async def prompt(self, model: Model) -> Prompt:
        """Raises NoTemplate, and InvalidRequest for a chat that the template refuses."""
        return await conversation.of_chat(model, self.messages)


def _message(given: Fields) -> dict[str, str]:
    given.admit(_HEEDED, _NEUTRAL)
    role = given.text("role")
    if role not in ROLES:
        problem = f"{shown(role)} is no role here" if role else "is missing"
        raise given.wrong("role", problem, f"Use one of {', '.join(ROLES)}")
    name = {"name": given.text("name")} if given.has("name") else {}
    return {"role": ROLES[role], "content": _content(given), **name}


def _content(given: Fields) -> str:
    """A text, or parts of text, of which each begins a line."""
    if not isinstance(given.raw("content"), list):
        if not given.has("content"):
            raise given.wrong("content", "is missing", "Give a text")
        return given.text("content")
    parts = given.objects("content")
    for part in parts:
        kind = part.text("type")
        if kind != "text":
            raise part.wrong("type", f"{shown(kind)} is not read here", "Send parts of type text")
        part.admit(frozenset({"type", "text"}), {})
    return "\n".join(part.text("text") for part in parts)
