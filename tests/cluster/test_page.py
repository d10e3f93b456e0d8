"""The operator's own page: healthy while the API server is heard, deaf after a quarter of an hour."""

from __future__ import annotations

import time

import aiohttp
import pytest
from helios_operator.cluster.http import DEAF_SECONDS, Page
from helios_operator.cluster.metrics import Metrics


@pytest.mark.parametrize(("age", "status"), [(0.0, 200), (DEAF_SECONDS - 60, 200), (DEAF_SECONDS + 1, 503)])
async def test_health_is_the_age_of_the_last_word(age: float, status: int) -> None:
    page = Page(Metrics(), lambda: time.time() - age)
    port = await page.open("127.0.0.1", 0)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/healthz") as answer,
        ):
            assert answer.status == status
            assert f"{age:.0f} s ago" in await answer.text()
    finally:
        await page.close()


@pytest.mark.parametrize(
    ("host", "called"),
    [("::", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]")],
)
async def test_it_is_reached_by_both_families(host: str, called: str) -> None:
    page = Page(Metrics(), time.time)
    port = await page.open(host, 0)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{called}:{port}/healthz") as answer,
        ):
            assert answer.status == 200
    finally:
        await page.close()


async def test_metrics_tell_when_it_was() -> None:
    heard = time.time() - 100
    page = Page(Metrics(), lambda: heard)
    port = await page.open("127.0.0.1", 0)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        told = next(line for line in lines if line.startswith("helios_operator_last_watch_event"))
        assert float(told.split()[1]) == pytest.approx(heard, abs=0.01)
    finally:
        await page.close()
