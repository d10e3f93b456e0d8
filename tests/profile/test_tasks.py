"""`helios profile --tasks`: which tasks an option passes, as bits for a Job and as tables for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helios_contract import results, tasks
from helios_contract.results import OptionPasses
from helios_contract.tasks import Expectation, Message, Task
from helios_server.engine.offline import Weights, generate
from helios_server.engine.request import Served, Span
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.head import BareHead
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer
from helios_server.profile import document, main
from helios_server.profile.answered import ROWS, Question, answers
from helios_server.profile.task_options import MOST_OPTIONS

from tests.checkpoints import make_checkpoint
from tests.profile.planted import idle_after, noise_bundle

PROMPTS = [f"prompt {index} of a few" + " and more" * (index % 5) for index in range(ROWS + 5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose layers from the third on change nothing."""
    return idle_after(tmp_path_factory.mktemp("models") / "model", layer=2)


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = tmp_path / "result.json"
    code = main(["--kind", "tasks", *arguments, "--result", str(result), "--output", "json"])
    return code, json.loads(result.read_text())


def written(tmp_path: Path, *listed: Task) -> str:
    file = tmp_path / "tasks.json"
    file.write_text(tasks.document(listed))
    return str(file)


def as_json(*rows: dict[str, Any]) -> str:
    return json.dumps(rows)


def said_by(model: Path, prompts: list[str], depth: int, most: int) -> list[str]:
    """What the plain loop makes of each prompt, one after the other."""
    checkpoint = Checkpoint.open(model)
    tokenizer = Tokenizer.open(model)
    backbone = Backbone.load(checkpoint, depth, dtype="float32")
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    weights = Weights(backbone, BareHead(backbone))
    spans = [Span(0, Served("", "", "", "", "", depth))]
    said = []
    for prompt in prompts:
        ids = tuple(tokenizer.encode(prompt, add_special=True))
        told = generate(lambda _: weights, "one", ids, SamplingParams(), spans, most).token_ids
        ends = [place for place, token in enumerate(told) if token in checkpoint.config.eos_token_ids]
        said.append(tokenizer.decode(told[: ends[0]] if ends else told))
    return said


def test_answers_in_batches_are_those_of_the_plain_loop(model: Path) -> None:
    tokenizer, checkpoint = Tokenizer.open(model), Checkpoint.open(model)
    backbone = Backbone.load(checkpoint, 4, dtype="float32")
    backbone.never_choose(tokenizer.lacking(checkpoint.config.vocab_size))
    prompts = [*PROMPTS, "a long one " * 30, "z"]  # more than a step has tokens
    asked = [Question(tuple(tokenizer.encode(prompt, add_special=True)), 9) for prompt in prompts]
    told = list(answers(Weights(backbone, BareHead(backbone)), 4, asked))
    assert [tokenizer.decode(ids) for ids in told if isinstance(ids, tuple)] == said_by(model, prompts, 4, 9)
    assert len(set(told)) > 1


def test_passes_are_told_option_by_option(tmp_path: Path, model: Path) -> None:
    deep, shallow = (said_by(model, PROMPTS[:5], depth, 6) for depth in (4, 1))
    assert deep != shallow
    listed = [
        Task(f"t{index}", Expectation(equals=text.strip() or None, contains=None if text.strip() else text),
             prompt=prompt, max_tokens=6)
        for index, (prompt, text) in enumerate(zip(PROMPTS[:5], deep, strict=True))
    ]  # fmt: skip
    candidates = as_json({"name": "own", "uri": f"file://{model}", "exitLayers": [1, 2]})
    options = as_json(
        {"candidate": "own", "layerBudget": 4},
        {"candidate": "own", "layerBudget": 1, "weightDtype": "auto"},
        {"candidate": "own", "layerBudget": 2, "kvCacheDtype": "auto"},
    )
    code, found = run(
        tmp_path, "--candidates", candidates, "--options", options, "--dtype", "float32",
        "--tasks-file", written(tmp_path, *listed), "--tasks-digest", tasks.digest(listed),
    )  # fmt: skip
    assert code == 0
    result = results.from_json(json.dumps(found))
    assert isinstance(result, results.Tasks)
    same = [a.strip() == b.strip() for a, b in zip(deep, shallow, strict=True)]
    assert (result.tasks, result.tasks_digest) == (5, tasks.digest(listed))
    assert result.rows == (
        OptionPasses("own", "", 4, tasks.bits([True] * 5)),
        OptionPasses("own", "", 1, tasks.bits(same)),
        OptionPasses("own", "", 2, tasks.bits([True] * 5)),
    )


def test_candidates_of_several_backbones_share_a_run(tmp_path: Path, model: Path) -> None:
    other = make_checkpoint(tmp_path / "other", layers=2, seed=3)
    heads = noise_bundle(tmp_path / "heads", model, (1,))
    candidates = as_json(
        {"name": "a", "uri": f"file://{model}", "exits": f"file://{heads}"},
        {"name": "b", "uri": f"file://{other}"},
    )
    options = as_json({"candidate": "b", "layerBudget": 2}, {"candidate": "a", "layerBudget": 1},
                      {"candidate": "a", "layerBudget": 4})  # fmt: skip
    listed = written(tmp_path, Task("one", Expectation(regex="^"), prompt="x", max_tokens=2))
    code, found = run(tmp_path, "--candidates", candidates, "--options", options, "--tasks-file", listed)
    assert code == 0
    assert [(row["candidate"], row["layerBudget"], row["passes"]) for row in found["rows"]] == [
        ("b", 2, "8"), ("a", 1, "8"), ("a", 4, "8"),
    ]  # fmt: skip
    assert found["rows"][1]["exitsDigest"].startswith("sha256:")
    assert found["rows"][2].get("exitsDigest", "") == ""  # heads do not matter at full depth


def test_a_person_sees_passes_of_every_depth_and_the_failed_answers(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [deep] = said_by(model, PROMPTS[:1], 4, 6)
    chat = Task(
        "talks", Expectation(contains="never said"), messages=(Message("user", "hello"),), max_tokens=4
    )
    quoted = Task("quoted", Expectation(regex=r"^'\."), prompt="say 'it'\nin \"C:\\x\"", max_tokens=2)
    same = Task("same", Expectation(regex="^"), prompt="x", max_tokens=2)
    copies = Task("copies", Expectation(equals=deep), prompt=PROMPTS[0], max_tokens=6)
    arguments = ["--model", f"file://{model}", "--exit-layers", "1,2", "--dtype", "float32"]
    assert main([*arguments, "--tasks", written(tmp_path, copies, same, chat, quoted)]) == 0
    shown = capsys.readouterr().out
    assert "Tasks passed, of 4" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith("own-head")]
    assert rows == [
        ["own-head", "auto", "auto", "4", "2", "2", "of", "2"],
        ["own-head", "auto", "auto", "2", "2", "2", "of", "2"],
        ["own-head", "auto", "auto", "1", "1", "1", "of", "2"],
    ]
    assert "copies: prompt 0 of a few" in shown
    assert "talks: hello" in shown
    assert "same:" not in shown
    assert "does not contain 'never said'" in shown
    assert "quoted: say 'it'\\nin \"C:\\x\"\n" in shown
    assert '[does not match "^\'\\\\."]' in shown


def test_precisions_are_asked_side_by_side(tmp_path: Path, model: Path) -> None:
    """An option in int8 has answers of its own, and a person names precisions for all depths."""
    listed = written(tmp_path, Task("one", Expectation(regex="^"), prompt="x", max_tokens=2))
    arguments = ("--model", f"file://{model}", "--exit-layers", "2", "--tasks-file", listed)
    code, found = run(tmp_path, *arguments, "--precisions", "auto/auto,int8/int8")
    assert code == 0
    held = [(row["layerBudget"], row.get("weightDtype"), row.get("kvCacheDtype")) for row in found["rows"]]
    assert held == [(4, "auto", "auto"), (2, "auto", "auto"), (4, "int8", "int8"), (2, "int8", "int8")]


def test_the_largest_result_fits_a_termination_message() -> None:
    passes = tasks.bits([True] * tasks.MOST_TASKS)
    row = OptionPasses("n" * 63, "sha256:" + "d" * 64, 999, passes, "int8", "int8")
    largest = results.Tasks(
        tasks_digest="sha256:" + "d" * 64, tasks=tasks.MOST_TASKS, rows=(row,) * MOST_OPTIONS
    )
    assert document.fitted(largest) == largest


GOOD = '{"tasks": [{"name": "a", "prompt": "x", "expect": {"equals": "y"}}]}'


@pytest.mark.parametrize(
    ("arguments", "field", "problem"),
    [
        ([], "tasks-file", "is missing"),
        (["--tasks-file", "/no/such"], "tasks-file", "cannot be read"),
        (["--tasks-file", "{wrong}"], "tasks[0].expect.regex", "is no regular expression of RE2"),
        (["--tasks-file", "{good}", "--tasks-digest", "sha256:0"], "tasks-digest", "the tasks have sha256:"),
        (["--tasks-file", "{long}"], "tasks[0].prompt", "the model reads 512"),
        (["--tasks-file", "{chat}", "--model", "{mute}"], "tasks[0].messages", "no chat template"),
        (["--tasks-file", "{good}", "--options", "["], "options", "is not JSON"),
        (["--tasks-file", "{good}", "--options", "[]"], "options", "at least one"),
        (["--tasks-file", "{good}", "--options", as_json(*[{"candidate": "a", "layerBudget": 1}] * 13)],
         "options", "has 13 options"),
        (["--tasks-file", "{good}", "--options", as_json({"candidate": "x", "layerBudget": 1})],
         "options[0].candidate", "'x' is none of the candidates"),
        (["--tasks-file", "{good}", "--options", as_json({"candidate": "own-head", "layerBudget": 3})],
         "options[0].layerBudget", "3 is no exit of 'own-head'"),
        (["--tasks-file", "{good}", "--options", as_json({"candidate": "own-head", "layers": 3})],
         "options[0].layers", "is not a field"),
        (["--tasks-file", "{good}", "--options",
          as_json({"candidate": "own-head", "layerBudget": 4, "weightDtype": "int3"})],
         "options[0].weightDtype", "'int3' is no precision"),
        (["--tasks-file", "{good}", "--memory-mib", "10"], "memory-mib", "answering tasks at 4 layers takes"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(
    tmp_path: Path, model: Path, arguments: list[str], field: str, problem: str
) -> None:
    mute = make_checkpoint(tmp_path / "mute")
    (mute / "tokenizer_config.json").write_text("{}")
    files = {
        "good": GOOD,
        "wrong": GOOD.replace('"equals": "y"', '"regex": "(?=y)"'),
        "long": GOOD.replace('"x"', f'"{"x " * 300}"'),
        "chat": GOOD.replace('"prompt": "x"', '"messages": [{"role": "user", "content": "x"}]'),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    places = {name: str(tmp_path / name) for name in files} | {"mute": f"file://{mute}"}
    filled = [places.get(word.strip("{}"), word) for word in arguments]
    chosen = () if "--model" in filled else ("--model", f"file://{model}")
    code, found = run(tmp_path, *chosen, *filled)
    assert code == 2
    assert found["kind"] == "tasks"
    assert found["error"]["field"] == field
    assert problem in found["error"]["problem"]
    assert found["error"]["fix"]
