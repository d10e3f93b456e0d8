"""What the front address of OpenAI's API answers itself: that no pod is ready.

Given to the front by `site`. In the words and the shape that pods have for their own refusals
(docs/clients.md); it must not know why none is.
"""

from __future__ import annotations

import json
from http import HTTPStatus

_RETRY_SECONDS = 5


def answer(name: str) -> bytes:
    """A whole HTTP/1.1 response, after which the connection ends. name: of the deployment."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    message = f"model: no pod of {name} is ready; Retry, or see what it waits for: helios status {name}"
    error = {"message": message, "type": "server_error", "param": None, "code": "unavailable"}
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {status.phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Retry-After: {_RETRY_SECONDS}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
