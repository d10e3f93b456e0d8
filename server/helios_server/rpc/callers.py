"""Who calls: the tokens of those who may, from a folder of files, and the name of the one whose call runs.

Made by `serve`; the doors ask it before any work, gRPC by an interceptor and HTTP by a middleware, and set
`CALLER` for what the call does (`conversation`). Control has a token of its own (`auth.py`), which is
nobody's here. No token may be logged, counted or said: names are.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from helios_server.errors import HeliosError, InvalidRequest
from helios_server.rpc.auth import Token, bearer
from helios_server.rpc.errors import Unauthenticated
from helios_server.rpc.watched import Watched

logger = logging.getLogger(__name__)

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""The name of the token that came with the call of this task; empty where none is asked for."""
ASK_AGAIN: ContextVar[Callable[[], object]] = ContextVar("ask_again", default=lambda: None)
"""Raises Unauthenticated when that token has been revoked since: for calls that bring many requests."""
MOST_TOKENS = 1000
"""Names are labels of metrics."""
_FIELD = "auth-tokens"
_SENDABLE = re.compile(rb"[!-~]+")
_HOW = "Send it as 'Authorization: Bearer TOKEN'"


class CallerTokens:
    """A file for each token: its name is the caller's, its content the token. Names that begin with a dot are
    passed over, as a mounted Secret has some. control: what nobody may have.

    InvalidRequest where there is none at the start, or one that cannot be used. Later, such a folder changes
    nothing and is said; an empty one leaves nobody.
    """

    def __init__(self, folder: Path, control: Token | None = None) -> None:
        self._folder = folder
        self._control = control
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._watched = Watched(self._files)
        self._digests = self._read()
        if not self._digests:
            raise InvalidRequest(_FIELD, f"{folder} holds no token", "Add a file for each caller")

    @property
    def names(self) -> frozenset[str]:
        """Of those who may call."""
        return frozenset(self._digests)

    def authenticate(self, authorization: str) -> str:
        """The caller's name, for the value of the header. Unauthenticated where it is nobody's.

        Digests are compared, all of them in constant time: how long it takes tells nothing of any.
        """
        offered = bearer(authorization)
        if not offered:
            raise Unauthenticated("authorization", "no bearer token", _HOW)
        digest, found = self._digest(offered.encode("utf-8", "surrogateescape")), ""
        for name, known in self._digests.items():
            if hmac.compare_digest(known, digest):
                found = name
        if not found:
            problem = "the token is unknown here, or has been revoked"
            raise Unauthenticated("authorization", problem, "Use one that you were given for this deployment")
        return found

    def look(self) -> bool | None:
        """Reads files that were replaced. True: they hold now; False: the old ones do; None: no news."""
        if not self._watched.changed():
            return None
        try:
            before, self._digests = self.names, self._read()
        except HeliosError as error:
            logger.error("the tokens in use stay, the new ones cannot be used: %s", error)
            return False
        logger.info(
            "%d callers have a token now (came: %s; gone: %s)",
            len(self.names),
            ", ".join(sorted(self.names - before)) or "none",
            ", ".join(sorted(before - self.names)) or "none",
        )
        return True

    def _read(self) -> dict[str, bytes]:
        """Digests by name. InvalidRequest names the file that cannot be used."""
        named: dict[bytes, str] = {}
        try:
            paths = _files_in(self._folder)
        except OSError as error:
            problem = f"{self._folder} cannot be read ({error.strerror})"
            raise InvalidRequest(_FIELD, problem, "Give a folder with a file for each caller") from None
        for path in paths:
            digest = self._digest(self._token(path))
            if digest in named:
                problem = f"{path} holds the token of {named[digest]}, too"
                raise InvalidRequest(_FIELD, problem, "Draw one for each caller")
            named[digest] = path.name
        if len(named) > MOST_TOKENS:
            problem = f"{self._folder} holds {len(named)} tokens"
            raise InvalidRequest(_FIELD, problem, f"Keep to {MOST_TOKENS}")
        return {name: digest for digest, name in named.items()}

    def _files(self) -> list[Path]:
        """As they are looked at; none where that cannot be done."""
        try:
            return _files_in(self._folder)
        except OSError:
            return []

    def _token(self, path: Path) -> bytes:
        try:
            token = path.read_bytes().strip()
        except OSError as error:
            problem = f"{path} cannot be read ({error.strerror})"
            raise InvalidRequest(_FIELD, problem, "Let the server read it") from None
        if not _SENDABLE.fullmatch(token):
            problem = f"{path} {'is empty' if not token else 'holds what no header can carry'}"
            raise InvalidRequest(_FIELD, problem, "Write one word of ASCII into it")
        if self._control and self._control.matches(token.decode()):
            raise InvalidRequest(_FIELD, f"{path} is the Control port's token", "Draw another one")
        return token

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, key=self._key).digest()


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
