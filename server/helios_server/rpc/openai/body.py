"""The JSON object that a client of the HTTP door sends: read whole, within its bounds, or refused.

Called by `door`, in the place that the pod has for it (`rpc.bodies`). It must not know what the object says.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from aiohttp import web

from helios_server.models.json_file import parse_object
from helios_server.rpc import conversation
from helios_server.rpc.bodies import BODY_SECONDS, MOST_BYTES, Place
from helios_server.rpc.openai.errors import Unreadable

_JSON = "application/json"


def most_bytes(http: web.Request) -> int:
    """How many bytes the body may have. Raises Unreadable, and aiohttp's 413: nothing is read for either."""
    if http.content_type != _JSON:
        problem = f"is of type {http.content_type}"
        fix = f"Send it with 'Content-Type: {_JSON}'"
        raise Unreadable(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem, fix)
    told = http.content_length
    if told is not None and told > MOST_BYTES:
        raise web.HTTPRequestEntityTooLarge(MOST_BYTES, told)
    is_packed = "Content-Encoding" in http.headers
    return MOST_BYTES if told is None or is_packed else told


async def read(http: web.Request, place: Place) -> tuple[dict[str, Any], int]:
    """The object, and its bytes. Raises Unreadable, and aiohttp's 413."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            content = await _content(http)
    except TimeoutError:
        problem = f"did not arrive within {BODY_SECONDS:.0f} seconds"
        raise Unreadable(HTTPStatus.REQUEST_TIMEOUT, problem, "Send it whole") from None
    except web.RequestPayloadError as error:
        words = " ".join(str(error).split()).removeprefix("400, message: ")
        raise Unreadable(
            HTTPStatus.BAD_REQUEST, f"is cut short ({words})", "Send what its headers say"
        ) from None
    place.is_read(len(content))
    try:
        body = await conversation.reading(len(content), lambda: parse_object(content, unique=True))
    except ValueError as error:
        problem = f"is no JSON object ({error})"
        raise Unreadable(HTTPStatus.BAD_REQUEST, problem, "Send one JSON object in UTF-8") from None
    return body, len(content)


async def _content(http: web.Request) -> bytes:
    """aiohttp would keep it as long as the request lives."""
    content = bytearray()
    while piece := await http.content.readany():
        content += piece
        if len(content) > MOST_BYTES:
            raise web.HTTPRequestEntityTooLarge(MOST_BYTES, len(content))
    return bytes(content)
