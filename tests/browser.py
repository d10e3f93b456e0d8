"""Debian's Chromium without a window, driven by its DevTools protocol: what a person does, and what is shown.

Used by the tests of the page. aiohttp speaks the protocol: nothing but the browser is to be installed.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NOT_RUN = "not run: chromium is not installed, on Debian: apt-get install --no-install-recommends chromium"
_ALONE = (
    "--headless=new",
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    return shutil.which("chromium")


class Tab:
    """A page that is open. `complaints`: what its console was told, and what its scripts raised."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        told = await self.send("Page.navigate", url=url)
        assert "errorText" not in told, (url, told)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def send(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        told = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(60):
            answer = await told
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def value(self, expression: str) -> Any:
        """Of JavaScript, as JSON has it."""
        answer = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    async def until(self, expression: str, patience: float = 240) -> None:
        """The patience only bounds a failure."""
        async with asyncio.timeout(patience):
            while not await self.value(f"Boolean({expression})"):
                await asyncio.sleep(0.05)

    async def type(self, element: str, text: str) -> None:
        """In place of what stands there, as from a keyboard."""
        await self.value(f"document.getElementById('{element}').focus()")
        await self.value(f"document.getElementById('{element}').select()")
        await self.send("Input.insertText", text=text)

    async def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **key)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **key)

    async def click(self, element: str) -> None:
        """In its middle, wherever it is on the screen."""
        box = await self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.getElementById('{element}').getBoundingClientRect())"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        await self.send("Input.dispatchMouseEvent", type="mousePressed", **where)
        await self.send("Input.dispatchMouseEvent", type="mouseReleased", **where)

    async def picture(self, file: Path, scheme: str) -> None:
        """A screenshot in a colour scheme: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.send("Emulation.setEmulatedMedia", features=[feature])
        shot = await self.send("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            match said.get("method"):
                case None:
                    self._asked.pop(said["id"]).set_result(said)
                case "Log.entryAdded" if said["params"]["entry"]["level"] in ("warning", "error"):
                    self.complaints.append(said["params"]["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(said["params"]["exceptionDetails"]))


@asynccontextmanager
async def browsing(folder: Path, width: int = 900, height: int = 640) -> AsyncIterator[Tab]:
    """A browser with nothing in it but a tab; folder: for its profile."""
    found = chromium()
    assert found, NOT_RUN
    process = await asyncio.create_subprocess_exec(
        *(found, *_ALONE, f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(process, folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                [page] = [each for each in await answer.json() if each["type"] == "page"]
            socket = await session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
            tab = Tab(socket)
            try:
                yield tab
            finally:
                await tab.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _port(process: asyncio.subprocess.Process, file: Path) -> int:
    async with asyncio.timeout(120):
        while not (file.exists() and (lines := file.read_text().splitlines())):
            assert process.returncode is None, f"chromium ended with {process.returncode}"
            await asyncio.sleep(0.05)
    return int(lines[0])
