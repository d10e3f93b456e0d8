"""A chat's messages as text: the model's own template, rendered.

Called by the doors that take chats in, and for tasks that are chats. transformers renders, whose sandbox and
rules every published template was written for; it is imported with this module, which whoever only continues
texts does without. It must not choose a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from helios_server.errors import HeliosError, InvalidRequest
from helios_server.models.chat_template import ChatTemplate

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""As clients say, as templates know. A developer's word is the newer name of a system's."""
_render: Callable[..., Any] = render_jinja_template
"""Returns more than its annotation says: the texts, and where in them an assistant speaks."""


_CONTINUE = "Have a text continued (over HTTP by /v1/completions)"


class NoTemplate(HeliosError):
    """The model cannot chat: nobody says how."""

    code = "INVALID_ARGUMENT"


def render(template: ChatTemplate, messages: Sequence[Mapping[str, str]], field: str = "messages") -> str:
    """The text up to where the assistant's answer begins. messages: role, content, and name where it is
    given. Raises NoTemplate, and InvalidRequest for a chat that the template refuses; both name `field`."""
    if not template.text:
        fix = f"{_CONTINUE}, or serve a model whose tokenizer has one"
        raise NoTemplate(field, template.lacking, fix)
    try:
        (text,), _ = _render(
            [list(messages)], chat_template=template.text, add_generation_prompt=True, **template.special
        )
    except jinja2.TemplateSyntaxError as error:
        problem = f"the model's chat template is broken ({error})"
        raise NoTemplate(field, problem, f"{_CONTINUE}, or mend the template") from None
    except Exception as error:  # whatever a template does with messages that it was not written for
        problem = f"the model's chat template refuses them ({error})"
        raise InvalidRequest(field, problem, "Give messages as the model knows them") from None
    if not text:
        raise InvalidRequest(field, "the model's template makes no text of them", "Give other messages")
    return str(text)
