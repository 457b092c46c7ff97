"""Takes the pictures of docs/images from a run over real flights: `make screenshots`."""

import asyncio
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, expect

from tests.browser import chromium
from tests.browser.flights_run import FlightsRun

FOLDER = Path(__file__).parents[2] / "docs" / "images"
FLIGHTS = 60_000  # of January to the middle of March
PICTURES: dict[str, tuple[int, int, Any]] = {
    "page-light": (1_100, 940, "light"),
    "page-dark": (1_100, 940, "dark"),
    "page-phone": (360, 780, "light"),
}


async def take(browser: Browser, url: str, name: str) -> None:
    """One picture, when everything in sight is drawn."""
    width, height, scheme = PICTURES[name]
    context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(120_000)
    page = await context.new_page()
    await page.goto(url)
    await expect(page.locator("#connection")).to_have_text("Live", timeout=120_000)
    chart = page.locator("figure[data-chart=quality] .plot")
    top = await chart.evaluate("plot => plot.getBoundingClientRect().top")
    if top < height:  # else it is not drawn: nobody would see it
        await page.wait_for_selector("figure[data-chart=quality] .js-plotly-plot .trace")
    await page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
    await context.close()


async def main() -> None:
    """All pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    run = FlightsRun(FLIGHTS, every=500, freeze_after=20_000)
    async with chromium.launched() as browser, chromium.serving(run.board, run.metrics) as url:
        for name in PICTURES:
            await take(browser, url, name)


if __name__ == "__main__":
    asyncio.run(main())
