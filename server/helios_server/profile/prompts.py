"""The prompts that quality is measured on: from a file, or from a serving pod that was allowed to keep some.

Called by `command.py`. Prompts are held in memory only and appear in no log, result or message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import grpc
from helios_proto.v1 import control_pb2, control_pb2_grpc

from helios_server.errors import DataError, HeliosError, InvalidRequest, NotFound
from helios_server.telemetry.prompts import prompts_digest

_TIMEOUT_SECONDS = 30.0
_LARGEST_ANSWER_BYTES = 64 * 1024 * 1024


def from_file(path: Path) -> tuple[str, ...]:
    """A JSON list of texts, or a text file with one prompt per line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "prompts-file", f"{path} cannot be read ({error})", "Give a JSON list or a text file"
        ) from None
    prompts = _json_list(text) if text.lstrip().startswith("[") else text.splitlines()
    return checked("prompts-file", prompts)


def from_pod(address: str, token: str | None, digest: str) -> tuple[str, ...]:
    """Fetches a frozen set (digest "": the newest) from the Control port at HOST:PORT."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    options = [
        ("grpc.max_receive_message_length", _LARGEST_ANSWER_BYTES),
        ("grpc.enable_http_proxy", 0),  # no proxy reaches a pod
    ]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            answer = control_pb2_grpc.ControlStub(channel).GetPrompts(
                control_pb2.GetPromptsRequest(digest=digest),
                timeout=_TIMEOUT_SECONDS,
                metadata=metadata,
                wait_for_ready=True,
            )
        except grpc.RpcError as error:
            raise _refused(address, digest, error) from None
    return checked("prompts-from", list(answer.prompts))


def token_from(path: Path | None) -> str | None:
    """The Control token in a file; None when no file is given."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidRequest(
            "control-token-file", f"cannot be read ({error})", "Give the pod's token file"
        ) from None


def checked(field: str, prompts: list[str]) -> tuple[str, ...]:
    """Refuses an empty list and a prompt without text."""
    if not prompts:
        raise InvalidRequest(field, "holds no prompts", "Give at least one prompt")
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise InvalidRequest(f"{field}[{index}]", "is empty", "Remove it, or write a text")
    return tuple(prompts)


def check_digest(prompts: Sequence[str], digest: str) -> None:
    """Refuses prompts that are not those that `digest` names; "" names any."""
    found = prompts_digest(prompts)
    if digest and found != digest:
        raise InvalidRequest(
            "prompts-digest", f"is {digest}, the prompts have {found}", "Give the prompts it names"
        )


def _json_list(text: str) -> list[str]:
    try:
        prompts = json.loads(text)
    except ValueError as error:
        raise InvalidRequest("prompts-file", f"is not JSON ({error})", "Give a JSON list of texts") from None
    return list(prompts)


def _refused(address: str, digest: str, error: grpc.RpcError) -> HeliosError:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.NOT_FOUND:
        problem = f"{address} keeps no set {digest or '(none is frozen yet)'}"
        return NotFound("prompts-digest", problem, "Ask for a newer set")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return InvalidRequest(
            "control-token-file", f"{address} refused the token", "Give the token of that pod"
        )
    return DataError(
        "prompts-from", f"{address} does not answer ({details or code.name})", "Check that the pod runs"
    )
