"""What the demo's callers send has room in the memory that the demo gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helios_server.exits import data
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer

from examples.demo.__main__ import EXAMPLES
from examples.demo.texts import passages
from tests.checkpoints import write_tokenizer
from tests.sizes import LONG

_TABLE = f"TABLE = {','.join(map(str, range(500)))}"
"""Three words."""


def module(number: int) -> tuple[str, str]:
    lines = [f"value_{number}_{line} = {line} + {number}" for line in range(60)]
    return f"module_{number}", "\n".join([*lines[:30], _TABLE, *lines[30:]])


def test_no_prompt_takes_more_than_half_of_the_memory_whatever_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [module(number) for number in range(8)]
    domain = data.Domain(None, lambda: list(modules), "", "modules", "none", (20, 40), code=True)
    monkeypatch.setitem(data.DOMAINS, "code", domain)
    for name in ("one", "other"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        write_tokenizer(folder)
    tokenizer = Tokenizer.open(tmp_path / "models" / "one")
    candidates = [{"uri": "pvc://models/one"}, {"uri": "pvc://models/other"}]
    objects = [
        {"kind": "HeliosModel"},
        {"spec": {"candidates": candidates, "workload": {"isl": 200, "osl": 16}}},
    ]

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special=True))

    every = data.prompts("code", 48, seed=3)
    longer = [text for text in every if tokens(text) > 416]
    assert {_TABLE in text for text in longer} == {True}
    sent = passages(objects, "code", 48 - len(longer), volumes=tmp_path, seed=3)
    assert sent == [text for text in every if text not in longer]


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: it reads every text that the demo may send")
@pytest.mark.parametrize(
    ("file", "domain"),
    [
        *(("demo.yaml", domain) for domain in ("prose", "code", "speech", "german")),
        *(("two-backbones.yaml", domain) for domain in ("prose", "stdlib")),
    ],
)
def test_there_is_enough_to_send(file: str, domain: str) -> None:
    objects = list(yaml.safe_load_all((EXAMPLES / file).read_text()))
    for candidate in objects[-1]["spec"]["candidates"]:
        candidate["uri"] = f"file://{ensure_smollm2()}"
    assert len(passages(objects, domain, 300, volumes=Path(), seed=1)) == 300
