"""Pages' commands that measure, train or serve, as they stand: with the real model where a page means it, at
free ports, and with less time where a page gives ten minutes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helios_client import Client, Unavailable
from helios_contract import limits as limits_document
from helios_contract import results
from helios_contract.request_log import RequestLine, from_json
from helios_server.models.store import ensure_smollm2

from tests.checkpoints import make_checkpoint
from tests.documentation import printed
from tests.documentation.blocks import ROOT, Block, commands, of, transcript
from tests.documentation.shell import Shell
from tests.rpc.pods import limits_for
from tests.rpc.test_tracing import collecting
from tests.running import Running
from tests.sizes import LONG

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not LONG, reason="`make test-long` runs it: commands of the pages on the real model"),
]
SERVES = "MinimumReplicasServing"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has beside an installation."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def prompts() -> list[str]:
    """Those that the quickstart gives."""
    spec = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())["spec"]
    return list(spec["profiling"]["prompts"]["inline"])


def answered(shell: Shell) -> list[int]:
    """The depth of each token of an answer, once somebody serves."""
    end = time.monotonic() + 600
    with Client(f"127.0.0.1:{shell.ports[0]}") as client:
        while True:
            try:
                with client.stream("Call me Ishmael.", max_tokens=12) as stream:
                    return [chunk.depth for chunk in stream for _ in chunk.token_ids]
            except Unavailable:
                assert time.monotonic() < end
                time.sleep(0.2)


# -- README: the quickstart ----------------------------------------------------------------------------------


def test_the_quickstart(documented: list[Block], folder: Path) -> None:
    use, look, talk, tree = documented
    (sample,) = of("tests/test_guides.py::test_the_sample_of_the_readme_is_what_up_prints")
    fetch, serve, ask = commands(use.text)
    with Shell(folder) as shell:
        assert Path(shell.run(fetch).strip()).is_dir()
        up = shell.start(serve)
        up.until(SERVES)
        assert json.loads(shell.run(ask))["choices"][0]["message"]["content"]
        for command in commands(talk.text):
            assert shell.run(command).strip()
        assert printed.missing(sample.text, _chosen(up)) == []
        generate, status, why, capacity = map(shell.run, commands(look.text))
        assert generate.strip()
        assert re.search(r"^chat +True +smollm2", status, re.MULTILINE)
        assert "smollm2 at 27" in why
        assert "Llama-3-8B, 32 layers, in 24.0 GiB" in capacity
        state = folder / "state" / "chat"
        assert [path for path in _paths(tree) if not list(state.glob(path))] == []
        assert up.interrupt() == 0


def _chosen(up: Running) -> str:
    """All that was said until a person is told where to look next."""
    up.until("AllCandidatesCurrent")
    return up.until("next  helios why chat")


def _paths(tree: Block) -> Iterator[str]:
    """Of the folder that a page draws, as patterns: names and numbers are the reader's own."""
    above = ""
    for line in tree.lines[1:]:
        depth, path = len(line) - len(line.lstrip()), line.split()[0]
        path = re.sub(r"NAME(?=[/-]|$)", "chat", re.sub(r"NAME(?=\.json)", "*", path))
        path = re.sub(
            r"t-[0-9a-f]+", "t-*", re.sub(r"(?<=/)3(?=/)|-3-", lambda m: m[0].replace("3", "*"), path)
        )
        if depth == 2:
            above = path if path.endswith("/") else ""
            yield path
        else:
            yield above + path


# -- measuring and training ----------------------------------------------------------------------------------


def test_profile_by_hand(documented: list[Block], tmp_path: Path) -> None:
    by_hand, job = documented
    (tmp_path / "prompts.json").write_text(json.dumps(prompts()))
    with Shell(tmp_path, {"file:///models/": f"file://{ensure_smollm2().parent}/"}) as shell:
        command, shown = transcript(by_hand.text)
        assert printed.is_in(shown, shell.run(command))
        (command,) = commands(job.text)
        shell.run(command)
    result = results.from_json((tmp_path / "result.json").read_text())
    assert isinstance(result, results.Quality)
    assert [row.candidate for row in result.rows] == ["general"]


def test_tasks_by_hand(documented: list[Block], folder: Path) -> None:
    """The command is the page's sentence above the block."""
    (shown,) = documented
    command = "helios profile --model URI --exits BUNDLE --tasks FILE"
    assert f"`{command}`" in (ROOT / shown.page).read_text()
    given = {"URI": f"file://{ensure_smollm2()}", "BUNDLE": "builtin://general"}
    given["FILE"] = "examples/tasks-smollm2.json"
    with Shell(folder, given) as shell:
        said = shell.run(command)
    table, answers = shown.text.split("\n\n")
    assert printed.is_in(table, said)
    title, *lines = answers.strip().splitlines()
    assert title in said
    for line in lines:
        assert re.search(
            rf"^  {re.escape(line.split('(')[0].strip())} \(auto/auto\)  (passes|fails)", said, re.M
        )


def test_tune(documented: list[Block], tmp_path: Path) -> None:
    (block,) = documented
    (command,) = commands(block.text)
    make_checkpoint(tmp_path / "my-model", layers=24, dtype=torch.float32)
    (tmp_path / "code").mkdir()
    for name in ("chat.txt", "code/a.py"):
        (tmp_path / name).write_text("\n".join(prompts() * 8))
    places = {"file:///models/": f"file://{tmp_path}/", "--seconds 600": "--seconds 2"}
    with Shell(tmp_path, places) as shell:
        said = shell.run(command)
    assert {f"{name} {layer} of 24" for name in ("chat", "code") for layer in (16, 20, 24)} <= {
        " ".join(line.split()[:4]) for line in said.splitlines()
    }
    assert (tmp_path / "heads" / "exits.json").is_file()


# -- serving -------------------------------------------------------------------------------------------------


def test_what_is_recorded(documented: list[Block], tmp_path: Path) -> None:
    (block,) = documented
    (command,) = commands(block.text)
    model = make_checkpoint(tmp_path / "tiny", layers=6, max_position_embeddings=4096)
    (tmp_path / "limits.json").write_text(limits_document.to_json(limits_for(model)))
    with Shell(tmp_path, {"/var/log/helios": str(tmp_path)}) as shell:
        serve = shell.start(command)
        assert answered(shell)
        assert serve.interrupt() == 0
    lines = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert [type(from_json(line)) for line in lines] == [RequestLine]


def test_exit_mode_token(documented: list[Block], tmp_path: Path) -> None:
    (block,) = documented
    (command,) = commands(block.text)
    with Shell(tmp_path, {"file:///models/chat": f"file://{ensure_smollm2()}"}) as shell:
        serve = shell.start(command)
        assert set(answered(shell)) <= {24, 27, 30}
        assert serve.interrupt() == 0


async def test_spans_are_sent(documented: list[Block], folder: Path) -> None:
    """What is installed already is not installed again."""
    (block,) = documented
    install, serve, up = commands(block.text)
    async with collecting() as collector:
        places = {
            "file:///models/smollm2": f"file://{ensure_smollm2()}",
            "127.0.0.1:4317": f"127.0.0.1:{collector.port}",
        }
        with Shell(folder, places, OTEL_BSP_SCHEDULE_DELAY="20", PIP_NO_INDEX="1") as shell:
            assert "Successfully installed" not in shell.run(install)
            serving = shell.start(serve)
            await asyncio.to_thread(answered, shell)
            await collector.trace(f"text_completion {ensure_smollm2().name}", 4)
            assert await asyncio.to_thread(serving.interrupt) == 0
            collector.heard.clear()
            running = shell.start(up)
            await asyncio.to_thread(running.until, SERVES)
            await asyncio.to_thread(answered, shell)
            await collector.trace("text_completion chat", 4)
            assert await asyncio.to_thread(running.interrupt) == 0


def test_a_load_on_the_doors(documented: list[Block], tmp_path: Path) -> None:
    """Each command, short."""
    (block,) = documented
    own, given, closed, crowd = (f"{command} --short" for command in commands(block.text))
    model = make_checkpoint(tmp_path / "tiny", layers=6, max_position_embeddings=4096)
    with Shell(tmp_path) as shell:
        assert "openai" in shell.run(own)
        shell.start(f"helios serve --model file://{model} --exit-layers 2 4")
        answered(shell)
        assert "openai" in shell.run(given)
        assert json.loads(shell.run(closed))["figures"]
        assert (tmp_path / "latency.svg").is_file()
        assert "streams" in shell.run(crowd)
