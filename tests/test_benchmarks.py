"""docs/benchmarks.md is what `python -m bench.page` writes, and every figure of the docs is of a result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helios_server.planning import PERFORMANCE_VERSION

from bench.page import __main__ as writer
from bench.page.bounds import BOUNDS, Bound, Verdict, held, module_of
from bench.page.tables import with_range
from bench.report import publish

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
WRITTEN = {"benchmarks.md", "frontier.md"}
"""By commands, which are tested on their own."""


def claim(id: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {"id": id, "value": value, "low": low, "high": high, "unit": "x"}


def result(*claims: Mapping[str, Any], command: str = "python -m bench.budget") -> dict[str, Any]:
    return {
        "command": command,
        "date": "2026-11-29",
        "machine": {"cpu": "a processor", "cores": 2},
        "figures": {},
        "claims": list(claims),
    }


# -- the page ------------------------------------------------------------------------------------------------


def test_the_committed_page_is_of_the_committed_results() -> None:
    written = (ROOT / "docs" / "benchmarks.md").read_text()
    assert written == writer.page(writer.read(RESULTS)), "run: python -m bench.page"


def test_every_committed_claim_is_in_the_page() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    for file, found in writer.read(RESULTS).items():
        assert f"[{file.name}](../bench/results/{file.name}), `{found['command']}`" in page
        if module_of(found) != "bench.engine":  # whose claims are laid out by engine and batch
            assert all(f"| `{each['id']}` | " in page for each in found["claims"])


def test_no_committed_result_names_a_folder_of_the_machine() -> None:
    for file in RESULTS.iterdir():
        named = re.findall(r'"(?:file://)?(?:/root|/home)/[^"]*', file.read_text())
        assert not named, f"{file.name}: {named}"


def test_pictures_of_the_page_serve_light_and_dark() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", page)
    assert "pictures/bounds.svg" in pictures
    for name in pictures:
        svg = (ROOT / "docs" / name).read_text()
        # nothing behind the drawing, no letters in black or white
        assert not re.search(r"<path d=\"M 0 [\d.]+ \n[^\"]*\" style=\"fill: (#fff|white)", svg)
        letters = re.findall(r"<text style=\"([^\"]*)\"", svg)
        assert letters
        assert all("fill: #7d8590" in style for style in letters), name


def test_what_was_measured_of_an_earlier_engine_is_named() -> None:
    today = result(claim("speed", 1, 1, 1)) | {"performanceVersion": PERFORMANCE_VERSION}
    older = today | {"performanceVersion": PERFORMANCE_VERSION - 1}
    without_engine = older | {"command": "python -m bench.operator --output json"}
    found = {Path("today.json"): today, Path("without-engine.json"): without_engine}
    assert "earlier engine" not in writer.page(found)
    page = writer.page(found | {Path("older.json"): older, Path("unsaid.json"): result()})
    start = page.index("**Of an earlier engine.**")
    named = page[start : page.index("## What is asked")]
    assert re.findall(r"\[([\w-]+)\.json\]", named) == ["older", "unsaid"]


def test_a_result_says_of_which_engine_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    publish("json", {}, [], ())
    assert json.loads(capsys.readouterr().out)["performanceVersion"] == PERFORMANCE_VERSION


def test_a_page_of_one_result_has_all_of_it(tmp_path: Path) -> None:
    folder, docs = tmp_path / "results", tmp_path / "docs"
    folder.mkdir()
    lost = result(claim("lost", 2, 0, 3), command="python -m bench.requantize --output json")
    (folder / "requantize-x.json").write_text(json.dumps(lost))
    many = result(*(claim(f"c-{number}", 0.1234 * number, 0, 9.5) for number in range(20)))
    (folder / "budget.json").write_text(json.dumps(many))
    writer.main(["--results", str(folder), "--docs", str(docs)])
    page = (docs / "benchmarks.md").read_text()
    assert "0 of 1 bounds are reached." in page
    assert "- **streams lost by another precision** ([requantize-x.json]" in page
    assert "none asked; at worst 2 (0 to 3), `lost`." in page
    assert "What another precision in place costs" in page
    assert "a processor, 2 cores, 2026-11-29; [requantize-x.json]" in page
    assert "| `lost` | 2 | 0 to 3 | x |" in page
    assert "<details><summary>20 figures</summary>" in page
    assert "| `c-3` | 0.370 | 0.00 to 9.50 | x |" in page
    assert "## Beside other engines\n" in page
    assert "No result is committed yet." in page
    assert (docs / "pictures" / "bounds.svg").read_text().startswith("<?xml")


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("least", "most", "value", "low", "high", "verdict"),
    [
        (1.1, None, 1.2, 1.1, 1.3, Verdict.REACHED),
        (1.1, None, 1.2, 1.0, 1.3, Verdict.WITHIN),
        (1.1, None, 1.0, 0.9, 1.3, Verdict.MISSED),
        (None, 10, 9, 8, 10, Verdict.REACHED),
        (None, 10, 9, 8, 11, Verdict.WITHIN),
        (None, 10, 11, 8, 12, Verdict.MISSED),
        (None, 0, 0, 0, 0, Verdict.REACHED),
        (None, 0, 1, 1, 1, Verdict.MISSED),
    ],
)
def test_a_bound_is_reached_when_the_worst_round_holds_it(
    least: float | None, most: float | None, value: float, low: float, high: float, verdict: Verdict
) -> None:
    bound = Bound("bench.budget", "speed", "speed-.*", least=least, most=most)
    (found,) = held(result(claim("speed-a", value, low, high)), [bound])
    assert found.verdict is verdict
    assert found.missing == (verdict is Verdict.MISSED)


def test_the_worst_figure_is_one_of_those_that_make_the_verdict() -> None:
    bound = Bound("bench.budget", "speed", "speed-.*", least=1)
    claims = [claim("speed-a", 1.1, 1.05, 1.2), claim("speed-b", 1.5, 0.5, 1.6), claim("other", 0, 0, 0)]
    (found,) = held(result(*claims), [bound])
    assert (found.worst["id"], found.verdict, found.claims) == ("speed-b", Verdict.WITHIN, 2)


def test_a_bound_is_of_one_bench_and_of_its_instruction_set() -> None:
    named = result(claim("speed", 1, 1, 1)) | {"figures": {"isa": "avx2"}}
    bounds = [Bound("bench.budget", isa, "speed", least=1, isa=isa) for isa in ("", "avx2", "-avx2")]
    assert [one.bound.isa for one in held(named, [*bounds, Bound("bench.steady", "", "speed", 1)])] == [
        "",
        "avx2",
    ]


def is_of_its_setting(bound: Bound, result: Mapping[str, Any]) -> bool:
    """Whether a bound that names a setting of the loop's bench, an objective of its loops or energy can have
    claims of a result."""
    setting, source = (result.get("figures", {}).get(name, "") for name in ("setting", "energySource"))
    words = [word for word in ("steady", "shifting", "memory-bound") if word in bound.claims]
    measured = not (bound.claims.startswith("energy-") and source.startswith("declared"))
    ran = result.get("figures", {}).get("bestStatic", {})
    measured &= "quality" in ran or not bound.claims.startswith("quality-over-best-static")
    return module_of(result) == bound.bench and measured and all(word in setting for word in words)


def test_every_bound_of_a_bench_with_a_result_finds_its_claims() -> None:
    results = writer.read(RESULTS).values()
    there = {(module_of(each), each.get("figures", {}).get("isa", "")) for each in results}
    for bound in BOUNDS:
        excluded = bound.isa.removeprefix("-")
        its = {isa for module, isa in there if module == bound.bench}
        fitting = its - {excluded} if bound.isa.startswith("-") else its & {bound.isa} if bound.isa else its
        if fitting and any(is_of_its_setting(bound, each) for each in results):
            assert any(one.bound == bound for each in results for one in held(each, BOUNDS)), bound
        assert (bound.least is None) != (bound.most is None)


def test_figures_have_three_digits_and_counts_all() -> None:
    assert with_range(claim("x", 7, 7, 7)) == "7"
    assert with_range(claim("x", 1423.4, 1000, 2000.5)) == "1423 (1000 to 2000)"
    assert with_range(claim("x", 0.1017, 0.09, 12.34)) == "0.102 (0.0900 to 12.3)"
    assert with_range(None) == "-"


# -- figures of the docs -------------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.,/-])(\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+)(?:x|(?![\w/]|\.\d|-\w|,\d))")
CITED = re.compile("|".join(re.escape(file.name) for file in sorted(RESULTS.glob("*.json"))))
MEASURED = re.compile(r"\d[\d.,]*(?:x\b(?! )|x(?= in )| ?(?:tok/s|tokens/s|GB/s|tokens a second)\b)")
"""What only a measurement can say: a ratio of speeds, a speed."""
NOT_MEASURED = {
    "capacity.md": "computed from config.json, and compared with the command by a test of its own",
    "decisions-explained.md": "an example of a message",
}


def pages() -> list[Path]:
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *(page for page in docs if page.name not in WRITTEN)]


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items and table rows, without what is fenced."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    for part in re.split(r"\n\s*\n", text):
        yield from re.split(r"\n(?=[-|]|\d+\. )", part)


@cache
def numbers_of(name: str) -> frozenset[float]:
    """All that a result says, in its claims and its figures, and what its command was given; what runs come
    to in all; and what is asked of it."""
    found: set[float] = set()

    def walk(value: Any) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            found.add(float(value))
        elif isinstance(value, str):
            found.update(float(n) for n in re.findall(r"\d+(?:\.\d+)?", value))
        elif isinstance(value, Mapping):
            for key, each in value.items():
                walk(key)
                walk(each)
        else:
            found.add(float(len(value)))
            for each in value:
                walk(each)
            runs = [each for each in value if isinstance(each, Mapping)]
            for key in {key for run in runs for key, n in run.items() if type(n) in (int, float)}:
                found.add(float(sum(run.get(key, 0) for run in runs)))

    document = json.loads((RESULTS / name).read_text())
    walk(document)
    asked = (bound for bound in BOUNDS if bound.bench == module_of(document))
    found.update(float(limit) for bound in asked for limit in (bound.least, bound.most) if limit is not None)
    return frozenset(found)


def is_known(number: str, known: frozenset[float]) -> bool:
    """As it is, or in per cent; rounded as it is written."""
    digits = len(number.partition(".")[2])
    value = float(number.replace(",", ""))
    half = 0.5 * 10**-digits + 1e-9
    return any(abs(each - value) <= half or abs(100 * each - value) <= half for each in known)


def unknown(block: str) -> list[str]:
    """Figures of a block that cites results, and stand in none of them."""
    files = CITED.findall(block)
    known = frozenset().union(*(numbers_of(name) for name in files))
    words = re.sub(r"`[^`]*`|\]\([^)]*\)|\[[^\]]*\.json|[Dd]ecision \d{4}|\b0\d{3}\b", " ", block)
    return [number for number in NUMBER.findall(words) if not is_known(number, known)]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_figures_beside_a_result_are_of_it(page: Path) -> None:
    wrong = [(block, unknown(block)) for block in blocks(page.read_text()) if CITED.search(block)]
    assert [(block[:80], figures) for block, figures in wrong if figures] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_speed_stands_beside_the_result_that_it_is_of(page: Path) -> None:
    bare = [block for block in blocks(page.read_text()) if MEASURED.search(block) and not CITED.search(block)]
    assert page.name in NOT_MEASURED or bare == []


@pytest.mark.parametrize(
    ("words", "figures"),
    [
        ("reach 21 rows (3.0x) and 212 tokens/s: 1.44x, from 1.30 to 1.80", []),
        ("reach 22 rows and 1.45x, .5 s", ["22", "1.45", ".5"]),
        ("SmolLM2-135M in float16, decision 9999, `--rows 99` and AVX-512", []),
    ],
)
def test_a_figure_that_is_in_no_result_is_found(words: str, figures: list[str]) -> None:
    assert unknown(f"{words} ([budget.json](../bench/results/budget.json))") == figures
