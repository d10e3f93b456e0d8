"""`bench.pair`: specialists learn their own text and leave the trunk alone; what a trace comes to."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helios_server.models.checkpoint import Checkpoint

from bench.page import __main__ as writer
from bench.pair import drive, figures, make, specialist
from bench.pair.figures import Answer, Change, Played, Run, Worth, ratio_claim
from bench.pair.judge import Scored, score
from bench.pair.specialist import Plan
from tests.checkpoints import make_checkpoint
from tests.sizes import LONG

ROOT = Path(__file__).parents[2]
PLAN = Plan(layers=2, tokens=4096, steps=30, rate=3e-3, seed=1)


# -- specialists ---------------------------------------------------------------------------------------------


def words(seed: int, count: int = 4000) -> str:
    dice = random.Random(seed)
    return " ".join(dice.choice(("ship", "sea", "thin", "other", "win")) for _ in range(count))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    at = make_checkpoint(tmp_path_factory.mktemp("pair") / "model", layers=4, dtype=torch.float32)
    return Checkpoint.open(at)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(words(seed=0))
    return file


def test_a_specialist_predicts_its_text_better_and_shares_the_trunk(
    source: Checkpoint, text: Path, tmp_path: Path
) -> None:
    trained = specialist.train(source, text, PLAN, lambda _: None)
    specialist.write(source, trained, tmp_path)
    made = Checkpoint.open(tmp_path)
    assert made.config == source.config
    assert made.fingerprint != source.fingerprint
    changed = {name for name in source.names if not torch.equal(made.tensor(name), source.tensor(name))}
    assert changed == {name for name in source.names if ".2." in name or ".3." in name} | {
        "model.norm.weight"
    }
    unseen = [words(seed, count=30) for seed in range(1, 7)]
    before, after = score(source.path, unseen), score(tmp_path, unseen)
    assert after.bytes == before.bytes
    assert all(new < 0.8 * old for new, old in zip(after.millibits, before.millibits, strict=True))


def test_the_same_seed_makes_the_same_specialist(source: Checkpoint, text: Path) -> None:
    short = Plan(layers=1, tokens=2048, steps=3, seed=5)
    first, second = (specialist.train(source, text, short, lambda _: None) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = specialist.train(source, text, Plan(layers=1, tokens=2048, steps=3, seed=6), lambda _: None)
    assert not torch.equal(first["model.norm.weight"], other["model.norm.weight"])


def test_what_cannot_be_trained_is_named(source: Checkpoint, text: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--layers: 4 of 4 leave no trunk"):
        specialist.train(source, text, Plan(layers=4), lambda _: None)
    opt = Checkpoint.open(make_checkpoint(tmp_path / "opt", family="opt"))
    with pytest.raises(SystemExit, match=r"--model: .* is no Llama"):
        specialist.train(opt, text, PLAN, lambda _: None)


def test_the_promise_is_one_that_each_breaks_on_the_others_text() -> None:
    def found(prose_on_code: int, code_on_prose: int) -> make.HeldOut:
        worth = {
            "prose": {"prose": 1000, "code": code_on_prose},
            "code": {"prose": prose_on_code, "code": 1000},
        }
        return {
            kind: {name: Scored((bits,), (100,)) for name, bits in (by | {make.BASE: 1001}).items()}
            for kind, by in worth.items()
        }

    assert make.promise(found(1250, 1111)) == 95  # 80 and 90 % are kept
    assert make.promise(found(1001, 1250)) == 99


# -- what a trace comes to -----------------------------------------------------------------------------------

WORTH: Worth = {
    "prose": {"a": (1000, 100), "b": (1000, 100), "c": (3000, 100), "d": (3000, 100)},
    "code": {"a": (1250, 100), "b": (1250, 100), "c": (2400, 100), "d": (2400, 100)},
}
"""On a and b, which are prose, code is worth 80 %; on c and d it is prose that is worth 80 %."""


def answers(served: Sequence[tuple[str, str]], begin: float) -> tuple[Answer, ...]:
    """One a second, each of 10 tokens."""
    return tuple(
        Answer(prompt, candidate, 10, begin + place, begin + place + 1)
        for place, (prompt, candidate) in enumerate(served)
    )


def run(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]], *changes: Change) -> Run:
    phases = (
        Played("prose", 0.0, float(len(first)), answers(first, 0.0)),
        Played("code", 10.0, 10.0 + len(second), answers(second, 10.0)),
    )
    return Run(phases, changes)


SWITCH = Change("Switch", "prose", "code", "code is better", ended=12.5, seconds=2.0)
BOTH = run(
    [("a", "prose"), ("b", "prose")],
    [("c", "prose"), ("d", "prose"), ("c", "code"), ("d", "code")],
    SWITCH,
)


def alone(candidate: str) -> Run:
    return run([(each, candidate) for each in "ab"], [(each, candidate) for each in "cdcd"])


def test_quality_is_of_what_was_served_beside_the_better_one_of_each_phase() -> None:
    told = figures.summary(BOTH, WORTH)
    prose, code = told["phases"]
    assert prose["qualityPercent"] == 100
    assert prose["servedBy"] == {"prose": 2}
    assert code["servedBy"] == {"prose": 2, "code": 2}
    assert code["qualityPercent"] == pytest.approx(100 * 4 * 2400 / (2 * 3000 + 2 * 2400))
    assert code["bitsPerByte"] == pytest.approx((2 * 3000 + 2 * 2400) / 400 / 1000)
    whole = 100 * (2 * 1000 + 4 * 2400) / (2 * 1000 + 2 * 3000 + 2 * 2400)
    assert told["qualityPercent"] == pytest.approx(whole)
    assert told["tokensPerSecond"] == 10
    assert code["responseP99Ms"] == 1000


def test_a_change_costs_requests_that_the_wrong_one_answered_and_the_speed_meanwhile() -> None:
    (change,) = figures.summary(BOTH, WORTH)["changes"]
    assert (change["phase"], change["requestsBefore"], change["secondsIntoPhase"]) == ("code", 2, 2.5)
    assert change["qualityPercentBefore"] == 80
    assert change["tokensPerSecondMeanwhile"] == 10  # two answers ended in its two seconds
    assert change["tokensPerSecondElse"] == 10


def test_the_loop_is_compared_with_the_better_one_alone() -> None:
    runs = {"prose": alone("prose"), "code": alone("code"), figures.BOTH: BOTH}
    rounds = [{name: figures.summary(each, WORTH) for name, each in runs.items()}] * 2
    found = {claim.id: claim for claim in figures.claims(rounds)}
    assert found["quality-prose-2-code"].value == 80
    assert found["quality-code-1-prose"].value == 80
    best = found["quality-code"].value  # the longer phase is code
    assert best > found["quality-prose"].value
    ratio = found["quality-both-over-best-alone"]
    assert ratio.value == pytest.approx(found["quality-both"].value / best, abs=1e-4)
    assert (found["switches"].value, found["requests-before-a-switch"].value) == (1, 2)
    assert found["failed"].value == 0


def test_a_ratio_of_texts_in_pairs_is_surer_than_that_of_texts_that_differ() -> None:
    even = ratio_claim("x", [80, 160], [100, 200], "percent", 100)
    assert (even.value, even.low, even.high) == (80, 80, 80)
    uneven = ratio_claim("x", [90, 150], [100, 200], "percent", 100)
    assert uneven.low < uneven.value == 80 < uneven.high


def test_the_deployment_is_one_that_the_rules_admit(tmp_path: Path) -> None:
    from helios_operator.api import validation

    settings = drive.Settings(8, 32, ["A prompt of eight tokens or more, for sure."], 98, 900, 60, 20)
    obj = drive.deployment({kind: tmp_path / kind for kind in ("prose", "code")}, settings)
    admitted = validation.admit(obj, None)
    assert [each["name"] for each in admitted["spec"]["candidates"]] == ["prose", "code"]


# -- the page ------------------------------------------------------------------------------------------------


def result() -> dict[str, Any]:
    runs = {"prose": alone("prose"), "code": alone("code"), figures.BOTH: BOTH}
    rounds = [{name: figures.summary(each, WORTH) for name, each in runs.items()}]
    bits = [
        ratio_claim(f"bits-per-byte-{model}-on-{kind}", [1.5, 1.5], [1, 1], "bits/byte")
        for model in ("base", "prose", "code")
        for kind in ("prose", "code")
    ]
    return {
        "command": "python -m bench.pair --output json",
        "date": "2026-11-29",
        "machine": {"cpu": "a processor", "cores": 2},
        "figures": {
            "candidates": {"prose": "tiny-prose", "code": "tiny-code"},
            "callers": 8,
            "osl": 32,
            "minQualityPercent": 98,
            "rounds": rounds,
        },
        "claims": [vars(claim) for claim in (*figures.claims(rounds), *bits)],
    }


def test_the_page_shows_who_served_and_what_a_change_cost() -> None:
    page = writer.page({Path("pair.json"): result()})
    assert "## pair\n\nTwo models, each better on its own kind of text" in page
    assert "| base | 1.500 | 1.500 |" in page
    assert "| both | 2, code | prose 50 %, code 50 % | 88.89 | 0.027 | 10 | 1000 |" in page
    assert "| Switch to code | 2 | 2 | 2 | 80.0 | 10 | 10 |" in page
    assert "| `quality-both-over-best-alone` |" in page
    quiet = result()
    quiet["figures"]["rounds"][0]["both"]["changes"] = []
    quiet["figures"]["rounds"][0]["both"]["phases"][1]["decided"] = ["60 Keep/AlreadyBest: nothing is better"]
    page = writer.page({Path("pair.json"): quiet})
    assert "The loop changed nothing." in page
    assert "- code: 60 Keep/AlreadyBest: nothing is better\n" in page


# -- the whole -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="`make test-long` runs it: three deployments take minutes")
@pytest.mark.timeout(1800)
def test_it_runs_and_switches_to_the_better_one(tmp_path: Path) -> None:
    """A tiny model of random numbers knows what its top is taught: which one is better is plain."""
    model = make_checkpoint(tmp_path / "tiny", layers=4, dtype=torch.float32, max_position_embeddings=4096)
    options = ["--model", f"file://{model}", "--folder", str(tmp_path / "made"), "--layers", "3"]
    options += ["--rate", "3e-3", "--short", "--osl", "8", "--output", "json"]
    command = [sys.executable, "-m", "bench.pair", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    document = json.loads(ended.stdout)
    claims = {claim["id"]: claim["value"] for claim in document["claims"]}
    assert claims["bits-per-byte-prose-on-prose"] < claims["bits-per-byte-code-on-prose"]
    assert claims["bits-per-byte-code-on-code"] < claims["bits-per-byte-prose-on-code"]
    assert claims["failed"] == 0
    both = document["figures"]["rounds"][0]["both"]
    assert {change["kind"] for change in both["changes"]} <= {"Switch"}
    assert set(both["phases"][0]["servedBy"]) == {"prose"}
