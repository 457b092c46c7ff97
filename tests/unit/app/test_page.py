"""The page's server side: what is served, how, and to whom events go."""

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from app.broadcast import Broadcast
from app.live import Board
from app.metrics import PrometheusMetrics
from app.state import State, columns, leading
from app.web import WebServer
from learning.reports import Report

Json = dict[str, Any]


def report(second: int, loss: float = 0.3, **more: Any) -> Report:
    return Report("p", second * 1_000, label_ms=second * 1_000, quality={"rolling": {"log_loss": loss}}, **more)


@asynccontextmanager
async def serving(board: Board, metrics: PrometheusMetrics | None = None) -> AsyncIterator[str]:
    """A worker's web server around this board; its address."""
    server = WebServer(metrics or PrometheusMetrics(), lambda: True, board, host="127.0.0.1", port=0)
    await server.on_start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.on_stop()


@asynccontextmanager
async def broadcasting(board: Board, **options: Any) -> AsyncIterator[tuple[str, Broadcast]]:
    """`/events` alone, with a hundred looks a second."""
    broadcast = Broadcast(State(board, PrometheusMetrics(), "build"), seconds=0.01, **options)
    site = web.Application()
    site.add_routes([web.get("/events", broadcast.serve)])
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events", broadcast
    finally:
        await broadcast.close()
        await runner.cleanup()


async def next_event(response: aiohttp.ClientResponse) -> tuple[str, str, Json]:
    """Id, kind and sections of the next one that is no sign of life."""
    while True:
        text = (await response.content.readuntil(b"\n\n")).decode()
        fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
        if fields["event"] != "beat":
            return fields["id"], fields["event"], json.loads(fields["data"])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what is waited for has no event of its own
        await asyncio.sleep(0.01)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(limited())


def test_page_allows_nothing_from_elsewhere_and_nothing_inline() -> None:
    async def scenario() -> None:
        async with serving(Board("p")) as url, aiohttp.ClientSession(url) as session, session.get("/") as response:
            policy = response.headers["Content-Security-Policy"]
            html = await response.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?:|//[a-z]|\sstyle=|\son[a-z]+=|<style|<script>", html)

    run(scenario)


def test_files_may_be_kept_for_ever_because_their_address_changes_with_them() -> None:
    async def scenario() -> None:
        async with serving(Board("p")) as url, aiohttp.ClientSession(url, auto_decompress=False) as session:
            html = await (await session.get("/")).text()
            addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
            assert len(addresses) == 4
            for address in addresses:
                packed = await session.get(address, headers={"Accept-Encoding": "gzip"})
                plain = await session.get(address, headers={"Accept-Encoding": "identity"})
                assert packed.status == plain.status == 200
                assert "immutable" in packed.headers["Cache-Control"]
                assert packed.headers["Content-Encoding"] == "gzip"
                assert gzip.decompress(await packed.read()) == await plain.read()
            for wrong in ("/static/0/page.js", "/static/0/plotly.min.js", "/static/%2e%2e/web.py", "/static/x"):
                assert (await session.get(wrong)).status == 404

    run(scenario)


def test_state_is_what_the_board_and_the_metrics_say() -> None:
    async def scenario() -> None:
        board, metrics = Board("p", "what it says"), PrometheusMetrics()
        board.add_report(report(1, calibration_error=0.1))
        metrics.gauge("model_version", 7)
        async with serving(board, metrics) as url, aiohttp.ClientSession(url) as session:
            state = await (await session.get("/api/state")).json()
        assert state["about"]["description"] == "what it says"
        assert state["report"]["quality"]["rolling"]["log_loss"] == 0.3
        assert state["verdict"]["kind"] == "no_data"
        assert state["worker"]["model_version"] == 7.0
        assert state["history"]["quality"]["rolling"]["log_loss"] == [0.3]

    run(scenario)


def test_columns_are_of_equal_length_whatever_each_report_has() -> None:
    reports = [
        report(1),
        Report("p", 2_000, quality={"frozen": {"log_loss": 0.4}}, drift={"loss": 0.1}, coverage=0.5),
        Report("p", 3_000, quality={"rolling": {"log_loss": float("nan")}}, label_delay={"p50": 3.0}),
    ]
    found = columns(reports, leading(reports))
    assert found["quality"]["frozen"]["log_loss"] == [None, 0.4, None]
    assert found["drift"] == {"loss": [None, 0.1, None]}
    assert found["coverage"] == [None, 0.5, None]
    assert found["label_delay"] == {"p50": [None, None, 3.0]}


def test_signals_nearest_to_an_alarm_come_first() -> None:
    drift = {f"s{number:02d}": number / 100 for number in range(30)}
    assert leading([report(1, drift=drift), report(2, drift={"s00": 0.9})])[:2] == ["s00", "s29"]
    assert len(leading([report(1, drift=drift)])) == 12


def test_a_point_has_every_signal() -> None:
    """One that had left the leading twelve had no more points: its line ended, and its last value was told as now's."""
    board = Board("p")
    board.add_report(report(1, drift={f"s{number:02d}": number / 100 for number in range(30)}))
    board.add_report(report(2, drift={f"s{number:02d}": (30 - number) / 100 for number in range(30)}))
    point = json.loads(State(board, PrometheusMetrics(), "build").point())
    assert (len(point["drift"]), point["drift"]["s29"]) == (30, [0.01])


def test_whole_state_comes_first_and_then_only_what_changed() -> None:
    async def scenario() -> None:
        board = Board("p")
        board.add_report(report(1))
        async with broadcasting(board) as (url, _), aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            _, kind, state = await next_event(response)
            assert kind == "state"
            assert state["history"]["time"] == [1_000]
            board.add_report(report(2, 0.25))
            _, kind, changes = await next_event(response)
            assert kind == "changes"
            assert set(changes) == {"report", "verdict", "point"} - ({"verdict"} if "verdict" not in changes else set())
            assert changes["point"]["quality"]["rolling"]["log_loss"] == [0.25]
            for second in (3, 4):
                board.add_report(report(second))
            _, _, changes = await next_event(response)
            assert changes["history"]["time"] == [1_000, 2_000, 3_000, 4_000]

    run(scenario)


def test_history_and_points_together_have_every_report_once() -> None:
    """A report that came between a look and a new browser's first event was sent to it twice."""

    async def scenario() -> None:
        board = Board("p")
        async with broadcasting(board) as (url, _), aiohttp.ClientSession() as session:
            first = await session.get(url)
            await next_event(first)
            board.add_report(report(1))
            second = await session.get(url)  # comes before the look that would have sent the point
            _, _, state = await next_event(second)
            times = list(state["history"]["time"])
            board.add_report(report(2))
            _, _, changes = await next_event(second)
            times += changes["point"]["time"]
            assert times == [1_000, 2_000]
            first.close()
            second.close()

    run(scenario)


def test_who_comes_back_gets_what_it_missed() -> None:
    async def scenario() -> None:
        board = Board("p")
        async with broadcasting(board) as (url, broadcast), aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                name, _, _ = await next_event(response)
            await until(lambda: broadcast.clients == 0)
            board.add_report(report(1))
            for headers, query in (({"Last-Event-ID": name}, ""), ({}, f"?last={name}")):
                async with session.get(url + query, headers=headers) as response:
                    _, kind, changes = await next_event(response)
                    assert kind == "changes"
                    assert changes["point"]["time"] == [1_000]

    run(scenario)


@pytest.mark.parametrize("last", ["other-1", "x", "-", "{boot}-999999", "{boot}--1", "{boot}-9٣"])
def test_who_names_what_was_never_sent_gets_the_whole_state(last: str) -> None:
    """An id of an earlier worker, or one that somebody made up."""

    async def scenario() -> None:
        async with broadcasting(Board("p")) as (url, _), aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                name, _, _ = await next_event(response)
            said = last.replace("{boot}", name.partition("-")[0])
            async with session.get(url, params={"last": said}) as response:
                assert (await next_event(response))[1] == "state"

    run(scenario)


def test_too_many_are_turned_away_and_a_place_becomes_free_again() -> None:
    async def scenario() -> None:
        async with broadcasting(Board("p"), most=2) as (url, broadcast), aiohttp.ClientSession() as session:
            open_pages = [await session.get(url) for _ in range(2)]
            async with session.get(url) as refused:
                assert refused.status == 503
                assert refused.headers["Retry-After"] == "10"
            open_pages.pop().close()
            await until(lambda: broadcast.clients == 1)
            async with session.get(url) as response:
                assert response.status == 200
            open_pages.pop().close()

    run(scenario)


def test_who_does_not_read_is_cut_off_and_the_others_are_not() -> None:
    async def scenario() -> None:
        board = Board("p", "x" * 1_000_000)  # each event is larger than the buffers of a connection
        session = aiohttp.ClientSession(read_bufsize=2**22)
        async with broadcasting(board) as (url, broadcast), session:
            host, port = re.findall(r"//(.*):(\d+)", url)[0]
            lazy = socket.create_connection((host, int(port)))
            lazy.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with session.get(url) as response:
                await next_event(response)
                await until(lambda: broadcast.clients == 2)
                number = 0
                while broadcast.clients == 2:
                    number += 1
                    board.description = f"{number}" + "x" * 1_000_000
                    await next_event(response)
                board.description = "still here"
                while (await next_event(response))[2].get("about", {}).get("description") != "still here":
                    pass
            lazy.close()

    run(scenario)


def test_nothing_is_looked_at_while_nobody_is_there() -> None:
    async def scenario() -> None:
        async with broadcasting(Board("p")) as (url, broadcast), aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                await next_event(response)
            await until(lambda: broadcast._looking is not None and broadcast._looking.done())
            async with session.get(url) as response:
                await next_event(response)
                assert broadcast._looking is not None
                assert not broadcast._looking.done()

    run(scenario)


def test_server_ends_at_once_though_pages_are_open() -> None:
    """An endless answer would hold it for aiohttp's minute."""

    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            async with serving(Board("p")) as url:
                responses = [await session.get(f"{url}/events") for _ in range(3)]
                started = time.monotonic()
            assert time.monotonic() - started < 20
            for response in responses:
                with pytest.raises(aiohttp.ClientError):
                    await response.read()

    run(scenario)
