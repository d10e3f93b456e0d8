"""`helios serve` and `helios profile` of families that are not built like Llama."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helios_contract import limits as document
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile import main
from helios_server.profile.sweep import EFFORTS, Effort

from tests.checkpoints import make_checkpoint
from tests.engine.oracle import transformers_greedy
from tests.profile.planted import TEXTS, noise_bundle
from tests.rpc.pods import PROMPT, child, limits_for, speaking
from tests.rpc.test_serve import ready

NEW = ("opt", "gemma3_text")


@pytest.mark.parametrize("family", NEW)
async def test_a_pod_says_what_transformers_says(tmp_path: Path, family: str) -> None:
    path = make_checkpoint(tmp_path / "model", family, layers=4, shards=2, tied=False)
    heads = noise_bundle(tmp_path / "heads", path, (2,))
    (tmp_path / "limits.json").write_text(
        document.to_json(limits_for(path, exits_uri=f"file://{heads}", exit_layers=(2,)))
    )
    async with child(tmp_path, "--limits", str(tmp_path / "limits.json")) as pod:
        await ready(pod)
        async with speaking(await pod.ports()) as served:
            answer = await served.generate(max_tokens=30)
            await served.set_limits(layer_budget=2)
            exited = await served.generate(max_tokens=5)
    prompt = tuple(Tokenizer.open(path).encode(PROMPT))
    assert list(answer.output_ids) == transformers_greedy(path, prompt, 30, 4, torch.float64)
    assert len(exited.output_ids) == 5


@pytest.mark.parametrize("family", NEW)
def test_a_profile_of_it(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EFFORTS, "rapid", Effort(seconds=0.0, rounds=2))
    path = make_checkpoint(tmp_path / "model", family, layers=3)
    (tmp_path / "prompts.json").write_text(json.dumps(TEXTS))
    one = json.dumps([{"name": "one", "uri": f"file://{path}", "exitLayers": [2]}])

    def profiled(*arguments: str) -> dict[str, object]:
        result = tmp_path / "result.json"
        assert main([*arguments, "--candidates", one, "--result", str(result), "--output", "json"]) == 0
        return json.loads(result.read_text())

    inspected = profiled("--kind", "inspect")
    assert inspected["resolved"]["one"]["maxContextTokens"] == 512
    quality = profiled("--kind", "quality", "--prompts-file", str(tmp_path / "prompts.json"))
    assert [exit_["layer"] for exit_ in quality["rows"][0]["exits"]] == [2, 3]
    assert profiled("--kind", "timing", "--memory-mib", "8192")["fit"]["head"]["bare"]
