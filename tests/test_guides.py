"""docs/tour.md and docs/how-to-add.md name files, tests and functions that there are; README shows what
`helios up` prints."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from helios_cli.main import VERBS
from helios_cli.verbs.up import Screen
from helios_contract.limits import Limits
from helios_operator.api.reasons import Reason
from helios_operator.decide.facts.quality import Estimate
from helios_operator.decide.plan import Verdict, WriteLimits
from helios_operator.decide.weigh.select import percent
from helios_operator.local.events import Record
from helios_operator.passes.actions import describe

from tests.documentation.blocks import Block

ROOT = Path(__file__).parents[1]
FOLDERS = ("proto", "operator", "server", "cli", "client", "tests", "docs", "bench", "deploy")


@cache
def files() -> dict[str, Path]:
    """By the path from the root, with a slash before it."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix != ".pyc")
    return {f"/{path.relative_to(ROOT).as_posix()}": path for path in found if path.is_file()}


@cache
def code() -> str:
    sources = (path for path in files().values() if path.suffix == ".py" and path != Path(__file__))
    return "\n".join(path.read_text() for path in sources)


def missing(text: str) -> list[str]:
    """What a page names and nobody would find: a file (by its path's end), a test, a name of the code."""
    found = []
    for word in re.findall(r"`([^`\n]+)`", text):
        path, _, test = word.partition("::")
        if re.fullmatch(r"[\w/-]+\.(py|md|proto)", path):
            sources = [file.read_text() for name, file in files().items() if name.endswith(f"/{path}")]
            known = any(not test or f"def {test}(" in source for source in sources)
        elif re.fullmatch(r"\w+(\(\))?", word):
            known = re.search(rf"\b{word.removesuffix('()')}\b", code()) is not None
        else:
            continue
        if not known:
            found.append(word)
    links = (link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text))
    return [*found, *(link for link in links if not (ROOT / "docs" / link).exists())]


@pytest.mark.parametrize("page", ["tour.md", "how-to-add.md"])
def test_what_a_guide_names_is_there(page: str) -> None:
    assert missing((ROOT / "docs" / page).read_text()) == []


@pytest.mark.parametrize(
    "gone", ["`no_such_file.py`", "`test_wire.py::test_no_such`", "`_no_such_name`", "[x](no-such-page.md)"]
)
def test_what_is_not_there_is_missed(gone: str) -> None:
    assert len(missing(f"See {gone}.")) == 1


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of a page's headings."""
    heads = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def dead_links(page: Path) -> list[str]:
    text, gone = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            gone.append(f"{page.name}: {link}")
    return gone


def test_links_of_all_pages_lead_somewhere() -> None:
    assert [link for page in PAGES for link in dead_links(page)] == []


@pytest.mark.parametrize(
    "page", ["README.md", "docs/own-model.md", "docs/cli.md", "deploy/helm/helios/templates/NOTES.txt"]
)
def test_a_greeting_is_answered_briefly(page: str) -> None:
    """Greedy text of a small model goes round in circles up to the 256 tokens that are the default."""
    greetings = re.findall(r'helios generate "Call me Ishmael\.".*', (ROOT / page).read_text())
    assert greetings
    assert [greeting for greeting in greetings if "--max-tokens 40" not in greeting] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Some `words`, here")
    page = tmp_path / "a.md"
    page.write_text(
        "[a](b.md) [b](b.md#some-words-here) [c](b.md#other) [d](c.md) [e](#own) [f](https://x.org/c.md)"
    )
    assert dead_links(page) == ["a.md: b.md#other", "a.md: c.md", "a.md: #own"]


@pytest.mark.parametrize("page", ["README.md", "docs/own-model.md"])
def test_what_a_page_for_users_links_to_and_runs_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!http)([^)#]+)", text) + re.findall(r"\bexamples/[\w.-]+\.yaml", text)
    gone = {link for link in links if not ((folder / link).exists() or (ROOT / link).exists())}
    verbs = set(re.findall(r"^helios ([\w-]+)", text, re.MULTILINE))
    rows = re.findall(r"^\| `([\w,`. ]+)` \| ", text, re.MULTILINE)
    extras = {extra for row in rows for extra in re.findall(r"\w+", row)}
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert (gone, verbs - VERBS.keys(), extras - known) == (set(), set(), set())


def test_the_sample_of_the_readme_is_what_up_prints(
    documented: list[Block], capsys: pytest.CaptureFixture[str]
) -> None:
    (sample,) = documented
    uri = "pvc://models/smollm2-135m"
    limits = Limits(candidate="smollm2", model_uri=uri, layer_budget=27, generation=1, max_batch_size=110)
    action = WriteLimits(why=Verdict(True, Reason.FIRST_SELECTION, ""), revision=1, limits=limits)
    good, poor = (percent(Estimate(mean, low, 100, 16)) for mean, low in ((95.6, 93.28), (90.2, 87.8)))
    best, next_one = f"quality {good}, … tok/s with 110 rows", f"quality {poor} < 90"
    chosen = f"smollm2 at 27 layers: {best}; smollm2 at 24: {next_one}; …"
    precisions = "auto/auto, int8/auto, int8/int8, auto/int8"
    given = "on the given prompts, until live ones are collected: the first 32 of 8 tokens or more"
    screen = Screen()
    for source, about, reason, message in (
        ("event", "chat", "MinimumReplicasServing", "Available=True: 1/1 pods serve smollm2"),
        ("job", "t-96d26a9b7309", "Progress", f"Timing: smollm2 in {precisions}: 50 %, about 45 s left"),
        ("decision", describe(action), "FirstSelection", f"Select to smollm2 at 27: {chosen}"),
        ("event", "chat", "AllCandidatesCurrent", f"Profiled=True: 1 of 1 profiles current; {given}"),
    ):
        screen.show(Record("2026-01-02T03:04:05Z", "chat", source, about, "Normal", reason, message))
    printed = capsys.readouterr().out
    assert words(printed) == words(sample.text)


def words(printed: str) -> list[str]:
    """Without the times at which lines came."""
    return re.sub(r"^\d\d:\d\d:\d\d", "", printed, flags=re.MULTILINE).split()
