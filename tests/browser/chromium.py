"""A headless Chromium of the machine, and a worker's web server for it to look at."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from app.live import Board
from app.metrics import PrometheusMetrics
from app.web import WebServer
from tests.missing import missing

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str:
    """Its path. Without one the test is skipped, with CI=true it fails."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        missing(f"no browser: found none of {', '.join(NAMES)}; install one, as with `apt-get install chromium`")
    return found


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """The browser; in a sandbox of its own except for root, whom it refuses one."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find(), chromium_sandbox=os.geteuid() != 0)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def serving(board: Board, metrics: PrometheusMetrics, port: int = 0) -> AsyncIterator[str]:
    """The worker's web server around this board; its address."""
    server = WebServer(metrics, lambda: True, board, host="127.0.0.1", port=port)
    await server.on_start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.on_stop()
