"""The page at `/`: a chat with the model, in which a token's colour is its depth and its confidence.

Its files are served as they are, from this package: nothing is built, and no other host is asked for
anything. It speaks the same API as every client. It must keep nothing: what was said lives in the browser.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
PATHS = frozenset(_FILES)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[web.RouteDef]:
    return [_route(path, file, kind) for path, (file, kind) in _FILES.items()]


def _route(path: str, file: str, kind: str) -> web.RouteDef:
    content = (_FOLDER / file).read_bytes()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=_HEADERS)

    return web.get(path, serve)
