"""docs/tasks.md from nothing to a choice: the real model, and prompts of prose. Which precision is the
fastest, the processor decides."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from helios_server.exits.data import prompts
from helios_server.models.store import ensure_smollm2

from tests.documentation import printed
from tests.documentation.blocks import ROOT, Block, commands
from tests.documentation.shell import Shell
from tests.sizes import LONG


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it measures four precisions")
def test_from_nothing_to_a_choice(documented: list[Block], tmp_path: Path) -> None:
    serve, chosen = documented
    (command,) = commands(serve.text)
    assert ensure_smollm2().is_dir()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with Shell(tmp_path) as shell:
        up = shell.start(command)
        up.until("WaitingForPrompts")
        for prompt in prompts("prose", 70):
            complete(shell, prompt)
        up.until("FirstSelection")
        assert printed.missing(chosen.text, up.until("helios why chat")) == []
        assert up.interrupt() == 0


def complete(shell: Shell, prompt: str) -> None:
    body = json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0}).encode()
    url = f"http://127.0.0.1:{shell.ports[1]}/v1/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        assert json.loads(answer.read())["usage"]["completion_tokens"]
