"""docs/tasks.md from nothing to a fall: the real model, prompts of prose, and a disk that spoils two layers
of a copy. Which precision is the fastest, the processor decides."""

from __future__ import annotations

import json
import re
import shutil
import struct
import urllib.request
from pathlib import Path

import pytest
from helios_server.exits.data import prompts
from helios_server.models.store import ensure_smollm2

from tests.documentation import printed
from tests.documentation.blocks import ROOT, Block, commands
from tests.documentation.shell import Shell
from tests.sizes import LONG

SPOILT = (10, 11)
"""Layers of 30."""


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it measures, and waits for rounds of tasks")
def test_from_nothing_to_a_fall(documented: list[Block], tmp_path: Path) -> None:
    serve, chosen, fall = documented
    (command,) = commands(serve.text)
    model = Path(shutil.copytree(ensure_smollm2(), tmp_path / "volumes" / "models" / "smollm2-135m"))
    tasks = tmp_path / "examples" / "tasks.yaml"
    tasks.parent.mkdir()
    shutil.copy(ROOT / "examples" / "tasks.yaml", tasks)
    with Shell(tmp_path, {"~/.cache/helios": str(tmp_path / "volumes")}) as shell:
        up = shell.start(command)
        up.until("WaitingForPrompts")
        for prompt in prompts("prose", 70):
            complete(shell, prompt)
        up.until("FirstSelection")
        said = up.until("helios why chat")
        assert printed.missing(chosen.text, said) == []
        assert up.interrupt() == 0

        spoil(model)
        tasks.write_text(tasks.read_text().replace("every: 10m", "every: 10s"))
        up = shell.start(command)
        said = up.until("NoFeasibleOption")
        shown = list(printed.entries(fall.text))
        if "auto/auto" in re.findall(r"FirstSelection  Select to general at 30[^:]*", said):
            shown = [shown[0], shown[-1]]
        assert printed.missing("\n".join(shown), said) == []
        assert up.interrupt() == 0


def complete(shell: Shell, prompt: str) -> None:
    body = json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0}).encode()
    url = f"http://127.0.0.1:{shell.ports[1]}/v1/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        assert json.loads(answer.read())["usage"]["completion_tokens"]


def spoil(model: Path) -> None:
    """The projections of two layers become zeros, in place; not a byte else changes."""
    (file,) = model.glob("*.safetensors")
    with file.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        for layer in SPOILT:
            for name, tensor in header.items():
                if f"layers.{layer}." in name and "proj" in name:
                    begin, end = tensor["data_offsets"]
                    stream.seek(8 + length + begin)
                    stream.write(bytes(end - begin))
