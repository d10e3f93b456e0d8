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

_render: Callable[..., Any] = render_jinja_template
"""Returns more than its annotation says: the texts, and where in them an assistant speaks."""


class NoTemplate(HeliosError):
    """The model cannot chat: nobody says how."""

    code = "INVALID_ARGUMENT"


def render(template: ChatTemplate, messages: Sequence[Mapping[str, str]]) -> str:
    """The text up to where the assistant's answer begins. messages: role, content, and name where it is
    given. Raises NoTemplate, and InvalidRequest for a chat that the template refuses."""
    if not template.text:
        fix = "Use /v1/completions, or a model whose tokenizer has one"
        raise NoTemplate("messages", template.lacking, fix)
    try:
        (text,), _ = _render(
            [list(messages)], chat_template=template.text, add_generation_prompt=True, **template.special
        )
    except jinja2.TemplateSyntaxError as error:
        problem = f"the model's chat template is broken ({error})"
        raise NoTemplate("messages", problem, "Use /v1/completions, or mend the template") from None
    except Exception as error:  # whatever a template does with messages that it was not written for
        problem = f"the model's chat template refuses them ({error})"
        raise InvalidRequest("messages", problem, "Give messages as the model knows them") from None
    return str(text)
