"""A hub of models on this machine, as huggingface_hub asks it: one repository at one commit, a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

REPOSITORY, COMMIT = "org/tiny", "c" * 40


@dataclass
class Hub:
    """`gated`: nobody may read it. `stalls`: a file of which half is sent, and then nothing; `half` is set by
    then."""

    files: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    gated: bool = False
    stalls: str = ""
    half: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(files: Path) -> Iterator[Hub]:
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            _answer(self, hub)

        def do_GET(self) -> None:
            _answer(self, hub)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def point_to(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """This process asks that hub from now on."""
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def _answer(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = request.path.partition("?")[0]
    hub.asked.append(path)
    api, files = f"/api/models/{REPOSITORY}", f"/{REPOSITORY}/resolve/{COMMIT}/"
    if path == f"{api}/revision/main" and not hub.gated:
        _send(request, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode())
    elif path == f"{api}/tree/{COMMIT}" and not hub.gated:
        _send(request, json.dumps([_described(file) for file in sorted(hub.files.iterdir())]).encode())
    elif path.startswith(files) and not hub.gated:
        name = path.removeprefix(files)
        _send(request, (hub.files / name).read_bytes(), hub if name == hub.stalls else None)
    else:
        request.send_response(403 if hub.gated else 404)
        known = path.startswith((api, f"/{REPOSITORY}/"))
        code = "GatedRepo" if hub.gated else "RevisionNotFound" if known else "RepoNotFound"
        request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()


def _described(file: Path) -> dict[str, Any]:
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": f"{len(file.name):040}"}


def _send(request: BaseHTTPRequestHandler, content: bytes, stalled_by: Hub | None = None) -> None:
    request.send_response(200)
    request.send_header("X-Repo-Commit", COMMIT)
    request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    if request.command == "HEAD":
        return
    if stalled_by is not None:
        request.wfile.write(content[: len(content) // 2])
        request.wfile.flush()
        stalled_by.half.set()
        stalled_by.over.wait()
        return
    request.wfile.write(content)
