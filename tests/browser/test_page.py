"""The live page in a real browser, fed by a run over real flights."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from app.live import Board
from app.metrics import PrometheusMetrics, parse
from learning.records import Example
from learning.reports import Alarm, FieldReport, Incident, Report
from tests.browser import chromium
from tests.browser.flights_run import FlightsRun

expect.set_options(timeout=60_000)

Scenario = Callable[[Browser], Awaitable[None]]


@pytest.fixture(scope="module")
def flown() -> FlightsRun:
    return FlightsRun(3_000, every=100, freeze_after=1_500)


@pytest.fixture(scope="module")
def look() -> Iterator[Callable[[Scenario], None]]:
    """Runs a scenario in a browser that is started once for all."""
    with asyncio.Runner() as runner:
        context = chromium.launched()
        browser = runner.run(context.__aenter__())
        try:
            yield lambda scenario: runner.run(scenario(browser))  # type: ignore[arg-type]
        finally:
            runner.run(context.__aexit__(None, None, None))


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, width: int = 1_200, scheme: Any = "light", may_fail: bool = False
) -> AsyncIterator[Page]:
    """The page, live; at the end nothing has left the machine and nothing was complained of in the console."""
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    page = await context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    await page.goto(url)
    await expect(page.locator("#connection")).to_have_text("Live")
    yield page
    await context.close()
    assert len(asked) > 5
    assert [address for address in asked if not address.startswith(f"{url}/")] == []
    if may_fail:
        complaints = [text for text in complaints if "net::ERR" not in text]
    assert complaints == []


async def numbers(page: Page, selector: str) -> dict[str, float]:
    """The exact values of a row's cells, by measure."""
    found: dict[str, float] = await page.eval_on_selector_all(
        f"{selector} td[data-measure]",
        "cells => Object.fromEntries(cells.map(c => [c.dataset.measure, Number(c.querySelector('data')?.value)]))",
    )
    return found


def test_numbers_are_those_of_metrics_and_of_the_report(look: Any, flown: FlightsRun) -> None:
    async def scenario(browser: Browser) -> None:
        report = flown.reports[-1]
        async with chromium.serving(flown.board, flown.metrics) as url, opened(browser, url) as page:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
                samples = parse(await response.text())
            for row, prefix in (("rolling", "rolling_"), ("total", ""), ("frozen", "frozen_")):
                shown = await numbers(page, f"#quality-table tr[data-row={row}]")
                assert shown == report.quality[row]
                assert shown == {name: samples[f'quality{{metric="{prefix}{name}"}}'] for name in shown}
                text = await page.locator(f"tr[data-row={row}] td[data-measure=log_loss]").text_content()
                assert text == f"{report.quality[row]['log_loss']:.4f}"
            shown = await numbers(page, "#quality-table tr[data-row=rolling_base_rate]")
            assert shown == report.baselines["rolling_base_rate"]
            worker: dict[str, float] = await page.eval_on_selector_all(
                "#worker-table tr[data-sample]",
                "rows => Object.fromEntries(rows.map(r => [r.dataset.sample, Number(r.querySelector('data').value)]))",
            )
            assert worker == {k: v for k, v in samples.items() if "_bucket" not in k}
            await expect(page.locator("#pipeline-numbers")).to_contain_text(f"{report.version:,}")
            await expect(page.locator("#label-numbers")).to_contain_text(f"{report.examples:,}")
            names = await page.locator("#fields-table tbody th").all_text_contents()
            assert sorted(names) == sorted(field.name for field in report.fields)
            ids = await page.locator("#recent-table tbody th").all_text_contents()
            assert ids == [seen.id for seen in flown.board.recent()]

    look(scenario)


def test_charts_show_the_history(look: Any, flown: FlightsRun) -> None:
    async def scenario(browser: Browser) -> None:
        async with chromium.serving(flown.board, flown.metrics) as url, opened(browser, url) as page:
            chart = page.locator("figure[data-chart=quality]")
            await expect(chart.locator(".js-plotly-plot")).to_be_visible()
            drawn = await chart.locator(".plot").evaluate("plot => plot.data.map(t => [t.name, t.y])")
            assert drawn[0][1] == [report.quality["rolling"]["log_loss"] for report in flown.board.reports()]
            assert [name for name, _ in drawn] == [
                "model, latest outcomes",
                "base rate",
                "last label",
                "frozen copy, since frozen",
                "model, since frozen",
            ]
            await page.get_by_label("ROC AUC", exact=True).check()
            await expect(chart.locator("figcaption")).to_contain_text("Higher is better")
            drawn = await chart.locator(".plot").evaluate("plot => plot.data[0].y")
            assert drawn == [report.quality["rolling"].get("roc_auc") for report in flown.board.reports()]
            await chart.locator("summary").click()
            first = await chart.locator("details tbody tr").first.locator("td").first.text_content()
            assert first == f"{flown.reports[-1].quality['rolling']['roc_auc']:.4f}"
            for name in ("calibration", "delay", "throughput", "lag"):
                figure = page.locator(f"figure[data-chart={name}]")
                await figure.scroll_into_view_if_needed()
                await expect(figure.locator(".js-plotly-plot")).to_be_visible()

    look(scenario)


def violations(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rules that are broken, and by what."""
    return [(rule["id"], [node["html"][:160] for node in rule["nodes"]]) for rule in found["violations"]]


def board_of(*reports: Report) -> Board:
    board = Board("flights", "Will it be late?")
    for report in reports:
        board.add_report(report)
    return board


def test_changes_show_without_loading_again(look: Any, flown: FlightsRun) -> None:
    async def scenario(browser: Browser) -> None:
        last = flown.reports[-1]
        board, metrics = board_of(*flown.reports), PrometheusMetrics()
        async with chromium.serving(board, metrics) as url, opened(browser, url) as page:
            await page.evaluate("window.kept = true")
            plot = page.locator("figure[data-chart=quality] .plot")
            await expect(page.locator("figure[data-chart=quality] .js-plotly-plot")).to_be_visible()
            alarm = Alarm("a1", "loss", "loss", "SR", last.label_ms, last.wall_ms, 1, 1, 9.0, 8.0, "The loss rose.")
            worse = msgspec.structs.replace(
                last,
                wall_ms=last.wall_ms + 2_000,
                quality={**last.quality, "rolling": {"log_loss": 0.456789}},
                lag={"departures": 3},
                alarms=[alarm],
                incidents=["a1"],
            )
            board.add_incident(Incident("a1", "flights", "open", 1, 2, 3, "labels", "Labels come late.", [alarm]))
            board.add_report(worse)
            metrics.gauge("model_version", 4_321)
            await expect(page.locator("#words")).to_have_text("Getting worse")
            await expect(page.locator("#why")).to_contain_text("Labels come late.")
            await expect(page.locator("#cause")).to_have_text("Look first at: the labels.")
            await expect(page.locator("tr[data-row=rolling] td[data-measure=log_loss]")).to_have_text("0.4568")
            await expect(page.locator("#worker-numbers")).to_contain_text("4,321")
            await expect(page.locator("article[data-id=a1]")).to_contain_text("look at the labels")
            drawn = await plot.evaluate("plot => plot.data[0].y")
            assert len(drawn) == len(flown.reports) + 1
            assert drawn[-1] == 0.456789
            assert await page.evaluate("window.kept") is True

    look(scenario)


def test_page_survives_a_restart_of_the_worker(look: Any, flown: FlightsRun) -> None:
    """It says that it is cut off, keeps the last numbers, and comes back by itself to what the new worker knows."""

    async def scenario(browser: Browser) -> None:
        first, second = board_of(*flown.reports[:-1]), board_of(*flown.reports)
        async with chromium.serving(first, PrometheusMetrics()) as url:
            page_of = opened(browser, url, may_fail=True)
            page = await page_of.__aenter__()
            await page.evaluate("window.kept = true")
            shown = page.locator("#label-numbers")
            await expect(shown).to_contain_text(f"{flown.reports[-2].examples:,}")
        await expect(page.locator("#connection")).to_contain_text("Disconnected; trying again in")
        await expect(page.locator("body")).to_have_class("stale")
        await expect(shown).to_contain_text(f"{flown.reports[-2].examples:,}")
        async with chromium.serving(second, PrometheusMetrics(), port=int(url.rsplit(":", 1)[1])):
            await expect(page.locator("#connection")).to_have_text("Live")
            await expect(shown).to_contain_text(f"{flown.reports[-1].examples:,}")
            assert await page.evaluate("window.kept") is True
            await page_of.__aexit__(None, None, None)

    look(scenario)


@pytest.mark.parametrize(("width", "scheme"), [(1_200, "light"), (360, "dark")])
def test_page_is_accessible(look: Any, flown: FlightsRun, width: int, scheme: str) -> None:
    """By axe's rules, contrast included, with everything unfolded; and nothing is wider than a phone."""

    async def scenario(browser: Browser) -> None:
        board = board_of(*flown.reports)
        alarm = Alarm("a1", "feature", "feature:x", "PSI", 1, 2, 1, 1, 9.0, 8.0, "x changed.")
        for state in ("open", "closed"):
            board.add_incident(Incident(state, "flights", state, 1, 2, 3, "data", "It is the data.", [alarm]))
        odd = [
            FieldReport("a", "field", 5, drifted=True),
            FieldReport("b", "field", 5, constant=True),
            FieldReport("c", "field", 5, new=["n"]),
        ]
        board.add_report(
            msgspec.structs.replace(
                flown.reports[-1], fields=odd, incidents=["open"], model_lag=9_999, events_per_second=10.0
            )
        )
        async with (
            chromium.serving(board, flown.metrics) as url,
            opened(browser, url, width=width, scheme=scheme) as page,
        ):
            await expect(page.locator("figure[data-chart=quality] .plot, #verdict").first).to_be_visible()
            await page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            found = await Axe().run(page)
            assert violations(found.response) == []
            assert len(found.response["passes"]) > 25
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            aloud = page.locator("[aria-live], [role=status], [role=alert], [role=log]")  # the verdict and nothing else
            await expect(aloud).to_have_count(1)
            await expect(aloud.locator("#words")).to_have_text("Pipeline behind")

    look(scenario)


def test_page_is_used_by_keyboard(look: Any, flown: FlightsRun) -> None:
    async def scenario(browser: Browser) -> None:
        fields = [
            FieldReport(name, "feature", n, psi=psi) for name, n, psi in (("a", 3, 0.2), ("b", 1, 0.3), ("c", 2, 0.1))
        ]
        board = board_of(msgspec.structs.replace(flown.reports[-1], fields=fields))
        async with chromium.serving(board, flown.metrics) as url, opened(browser, url) as page:
            names = page.locator("#fields-table tbody th")
            await expect(names).to_have_text(["b", "a", "c"])  # worst first
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.className") == "skip"
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.activeElement.id") == "main"
            stops = []
            for _ in range(60):
                await page.keyboard.press("Tab")
                outline, stop = await page.evaluate(
                    "[getComputedStyle(document.activeElement).outlineStyle,"
                    " document.activeElement.textContent.trim().slice(0, 40) || document.activeElement.value]"
                )
                if stop == "values":
                    break
                assert outline == "solid", stop
                stops.append(stop)
            assert "log_loss" in stops
            assert "Numbers: Log loss" in stops
            assert stops[-1] == "new categories"
            head = page.locator("#fields-table th[data-id=n]")
            await page.keyboard.press("Enter")
            await expect(head).to_have_attribute("aria-sort", "descending")
            await expect(names).to_have_text(["a", "c", "b"])
            await page.keyboard.press("Enter")
            await expect(head).to_have_attribute("aria-sort", "ascending")
            await expect(names).to_have_text(["b", "c", "a"])

    look(scenario)


def test_what_comes_from_a_topic_is_text(look: Any, flown: FlightsRun) -> None:
    """Ids, keys, categories and alarms may say anything; none of it becomes an element or runs."""
    evil = '<img src="http://192.0.2.1/x" onerror="alert(1)"><b>&amp;'

    async def scenario(browser: Browser) -> None:
        last = flown.reports[-1]
        alarm = Alarm(evil, "feature", evil, evil, last.label_ms, 5, 1, 1, 9.0, 8.0, evil)
        board = Board(evil, evil)
        report = msgspec.structs.replace(
            last,
            fields=[FieldReport(evil, "field", 9, new=[evil])],
            drift={evil: 0.5},
            alarms=[alarm],
            incidents=[evil],
            units={evil: [1]},
            dead_letters={evil: 0.5},
        )
        board.add_report(report)
        board.add_incident(
            Incident(evil, evil, "open", 1, 2, 3, "data", evil, [alarm], slices=[(evil, {evil: 1.0})], events=[evil])
        )
        board.add_outcome(Example(evil, evil, 1, 2, {evil: 0.5}, 1, [], "", evil, "label"))
        async with chromium.serving(board, flown.metrics) as url, opened(browser, url) as page:
            figure = page.locator("figure[data-chart=drift]")
            await figure.scroll_into_view_if_needed()
            await expect(figure.locator(".js-plotly-plot")).to_be_visible()
            await expect(page.locator("#recent-table tbody th")).to_have_text(evil)
            assert await page.locator("img, main b b, #incident-list b").count() == 0
            assert evil in (await figure.locator(".legendtext").first.text_content() or "")

    look(scenario)


def test_nothing_yet_is_said_and_not_drawn(look: Any) -> None:
    async def scenario(browser: Browser) -> None:
        async with chromium.serving(Board("flights"), PrometheusMetrics()) as url, opened(browser, url) as page:
            await expect(page.locator("#words")).to_have_text("No data yet")
            await expect(page.locator("figure[data-chart=quality] figcaption")).to_contain_text("Nothing to show yet.")
            assert await page.locator(".js-plotly-plot").count() == 0
            assert violations((await Axe().run(page)).response) == []

    look(scenario)
