"""What a person does on the page at `/`, and what has to be seen, of every pod that serves the real model.

Called with the address of a door. It needs a model of 30 layers with an exit that a request may ask for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.browser import Tab, browsing

HOSTILE = 'Who is <b id="planted">Ahab</b>?'
_TOKENS = """[...document.querySelectorAll("article.assistant:last-child > span")].map((span) => ({
  text: span.textContent, title: span.title, unsure: span.classList.contains("unsure"),
  colour: getComputedStyle(span).backgroundColor, line: getComputedStyle(span).borderBottomStyle }))"""
_ENDED = "document.getElementById('stop').hidden && document.getElementById('sums').textContent !== ''"


async def walk(url: str, folder: Path, exit_layer: int, layers: int, token: str = "") -> dict[str, Path]:
    """Screenshots by colour scheme. Raises AssertionError where something is not seen."""
    (folder / "profile").mkdir()
    async with browsing(folder / "profile") as tab:
        await tab.open(url)
        if token:
            await tab.until("!document.getElementById('enter').hidden")
            await tab.type("token", token)
            await tab.press_enter()
        await tab.until("document.getElementById('model').textContent !== '…'")
        assert f"of {layers} layers" in await tab.value("document.getElementById('about').textContent")
        await tab.type("tokens", "24")
        await tab.type("temperature", "0")

        full = await _ask(tab, HOSTILE)
        assert _depths(full) == {layers}
        assert await tab.value("document.getElementById('planted')") is None
        said = await tab.value("document.querySelector('article.user').textContent")
        assert said == HOSTILE

        await tab.value(f"document.getElementById('depth').value = '{exit_layer}'")
        shallow = await _ask(tab, "And who is Queequeg?")
        assert _depths(shallow) == {exit_layer}
        sums = await tab.value("document.getElementById('sums').textContent")
        assert sums.startswith(f"{exit_layer}.0 layers a token, ")

        for tokens, depth in ((full, layers), (shallow, exit_layer)):
            for token_shown in tokens:
                _check(token_shown, depth, layers)
        hues = [{_hue(each["colour"]) // 20 for each in tokens} for tokens in (full, shallow)]
        assert not hues[0] & hues[1], hues  # of two depths, two colours

        await tab.value("document.getElementById('depth').value = '0'")
        await _is_refused(tab)

        pictures = {scheme: folder / f"page-{scheme}.png" for scheme in ("light", "dark")}
        for scheme, file in pictures.items():
            await tab.picture(file, scheme)
            assert await _contrast(tab, "article.wrong") > 4.5, scheme
            assert await _contrast(tab, "article.user") > 7, scheme
            assert file.read_bytes().startswith(b"\x89PNG")
        assert pictures["light"].read_bytes() != pictures["dark"].read_bytes()

        await tab.click("clear")
        assert await tab.value("document.getElementById('talk').childElementCount") == 0
        assert [each for each in tab.complaints if "400 (Bad Request)" not in each] == []
        return pictures


async def _ask(tab: Tab, text: str) -> list[dict[str, Any]]:
    """The tokens of the answer, as they are shown."""
    await tab.value("document.getElementById('sums').textContent = ''")
    await tab.type("text", text)
    await tab.press_enter()
    await tab.until(_ENDED)
    tokens: list[dict[str, Any]] = await tab.value(_TOKENS)
    assert 1 < len(tokens) <= 24
    assert "".join(each["text"] for each in tokens).strip()
    return tokens


async def _is_refused(tab: Tab) -> None:
    """A prompt that fits nowhere: the server's words are shown."""
    await tab.type("text", "word " * 9000)
    await tab.press_enter()
    await tab.until("document.querySelector('article.wrong')")
    words = await tab.value("document.querySelector('article.wrong').textContent")
    assert re.fullmatch(r"\S+: .+; .+", words), words
    await tab.value("document.querySelector('article.wrong').previousElementSibling.remove()")
    await tab.value("document.getElementById('text').value = ''")  # it stood there, to be shortened


async def _contrast(tab: Tab, selector: str) -> float:
    """Of a text with the page behind it, as WCAG has it."""
    text, page = await tab.value(
        f"""(() => {{ const page = document.createElement("i"); page.style.backgroundColor = "Canvas";
          document.body.append(page); const behind = getComputedStyle(page).backgroundColor; page.remove();
          return [getComputedStyle(document.querySelector("{selector}")).color, behind]; }})()"""
    )
    most, least = sorted((_luminance(text), _luminance(page)), reverse=True)
    return (most + 0.05) / (least + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _depths(tokens: list[dict[str, Any]]) -> set[int]:
    return {int(re.findall(r"^layer (\d+) of", each["title"])[0]) for each in tokens}


def _check(shown: dict[str, Any], depth: int, layers: int) -> None:
    """Its colour is its depth, its paleness and its line how sure the model was."""
    percent = int(re.fullmatch(rf"layer {depth} of {layers}, (\d+) % sure", shown["title"])[1])  # type: ignore[index]
    hue = 30 + 180 * depth / layers
    assert abs(_hue(shown["colour"]) - hue) < 4, shown
    assert abs(_lightness(shown["colour"]) - (60 + 0.32 * percent)) < 1.5, shown
    if percent != 50:
        assert (shown["unsure"], shown["line"]) == ((True, "dotted") if percent < 50 else (False, "none"))


def _channels(colour: str) -> list[float]:
    return [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]


def _hue(colour: str) -> float:
    red, green, blue = _channels(colour)
    most, least = max(red, green, blue), min(red, green, blue)
    if most == least:
        return 0.0
    sixth = {
        red: (green - blue) / (most - least) % 6,
        green: (blue - red) / (most - least) + 2,
        blue: (red - green) / (most - least) + 4,
    }[most]
    return 60 * sixth


def _lightness(colour: str) -> float:
    channels = _channels(colour)
    return 50 * (max(channels) + min(channels))
