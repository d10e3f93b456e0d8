"""The page at `/`: what it names is served, nothing comes from elsewhere, and nothing of it can be made to
run what a model writes."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest
from helios_server.rpc.openai import page

from tests.rpc.openai_door.clients import CHAT, events, url
from tests.rpc.pods import Served

FOLDER = Path(page.__file__).parent / "page"
FILES = {file.name: file.read_text() for file in FOLDER.iterdir()}


async def fetched(pod: Served, path: str) -> tuple[int, str, str, str]:
    """Status, type, policy and text."""
    async with aiohttp.ClientSession() as session, session.get(url(pod) + path) as answer:
        policy = answer.headers["Content-Security-Policy"]
        return answer.status, answer.headers["Content-Type"], policy, await answer.text()


async def test_every_file_is_served_as_it_is(pod: Served) -> None:
    kinds = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
    assert set(FILES) == set(kinds)
    for name, kind in kinds.items():
        path = "/" if name == "index.html" else f"/{name}"
        status, told, policy, text = await fetched(pod, path)
        assert (status, told, text) == (200, f"{kind}; charset=utf-8", FILES[name])
        assert policy.startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        )
        assert "unsafe" not in policy


def test_what_the_page_names_is_here() -> None:
    named = re.findall(r'(?:href|src)="([^"]+)"', FILES["index.html"])
    assert {name for name in named if not name.startswith("data:")} == {"page.css", "page.js"}
    assert set(re.findall(r'"(v1/[a-z/]+)"', FILES["page.js"])) == {
        "v1/models",
        "v1/chat/completions",
        "v1/completions",
    }
    used = set(re.findall(r'at\("(\w+)"\)', FILES["page.js"]))
    assert used <= set(re.findall(r'id="(\w+)"', FILES["index.html"]))


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_other_host_is_asked_and_no_markup_made_of_text(name: str) -> None:
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", FILES[name].replace("// ", ""))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Storage|cookie|indexedDB|history\.",
        FILES[name],
    )
    assert not re.search(r'\son\w+="|style="|<style|javascript:', FILES[name])


def test_a_token_is_typed_and_sent_and_kept_nowhere() -> None:
    """The field has no name, so that no form carries it away, and is emptied once it is read."""
    (field,) = re.findall(r'<input id="token"[^>]*>', FILES["index.html"])
    assert 'type="password"' in field
    assert 'autocomplete="off"' in field
    assert "name=" not in field
    assert '<form id="enter" hidden>' in FILES["index.html"]
    script = FILES["page.js"]
    assert len(re.findall(r"\bfetch\(", script)) == len(re.findall(r"\bheaders\(\)(?! \{)", script)) == 2
    assert 'at("token").value = "";' in script


async def test_the_stream_holds_what_the_page_reads(pod: Served) -> None:
    """Every property that page.js takes of an event's `helios` is there."""
    script = FILES["page.js"]
    *chunks, _ = await events(pod, CHAT)
    made = set(re.findall(r"made\.(\w+)", script))
    assert made <= {*chunks[1]["helios"], *chunks[-1]["helios"]}
    assert {"depth", "confidences", "mean_layers", "mean_confidence", "spans"} == made
    async with aiohttp.ClientSession() as session, session.get(f"{url(pod)}/v1/models") as answer:
        (model,) = (await answer.json())["data"]
    taken = re.search(r"const \{ (.+) \} = model\.helios", script)
    assert taken is not None
    assert set(taken[1].split(", ")) <= set(model["helios"])
