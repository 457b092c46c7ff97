"""Who may read the worker's web server, asked over real connections."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from app.cli import main
from app.live import Board
from app.metrics import PrometheusMetrics
from app.settings import Settings, SettingsError, load_settings
from app.status import metrics_url, scrape
from app.web import WebServer
from streaming.errors import StartupError

TOKEN = "t0ken-of-a-worker-in-a-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATHS = ("/metrics", "/", "/table", "/table/profiles/EWR", "/router/profiles/EWR", "/stats", "/health", "/healthy")


@asynccontextmanager
async def served(host: str = "0.0.0.0", token: str = TOKEN) -> AsyncIterator[str]:
    server = WebServer(PrometheusMetrics(), lambda: True, Board("tiny"), host=host, port=0, token=SecretStr(token))
    await server.on_start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.on_stop()


async def get(url: str, headers: Mapping[str, str] | None = None, **options: Any) -> tuple[int, str, Mapping[str, str]]:
    """Status, text and headers, with no redirect followed."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(url, headers=headers, allow_redirects=False, **options) as response,
    ):
        return response.status, await response.text(), response.headers


def test_beyond_loopback_everything_but_health_wants_the_token() -> None:
    async def ask() -> None:
        async with served() as url:
            for path in PATHS:
                status, said, headers = await get(url + path)
                assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="headwater"')
                assert TOKEN not in said
            assert (await get(f"{url}/metrics", BEARER))[0] == 200
            assert (await get(f"{url}/metrics", {"Authorization": f"bearer {TOKEN}"}))[0] == 200
            assert (await get(f"{url}/", BEARER))[0] == 200
            for path in PATHS[2:]:
                assert (await get(url + path, BEARER))[0] == 404
            for path in ("/health/live", "/health/ready"):
                assert (await get(url + path))[0] == 200

    asyncio.run(ask())


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
def test_another_token_is_refused(said: str) -> None:
    async def ask() -> None:
        async with served() as url:
            assert (await get(f"{url}/metrics", {"Authorization": said}))[0] == 401

    asyncio.run(ask())


def test_browser_gets_a_cookie_for_the_token_and_an_address_without_it() -> None:
    async def ask() -> None:
        async with served() as url:
            assert (await get(f"{url}/metrics?token=another"))[0] == 401
            status, _, headers = await get(f"{url}/metrics?a=1&token={TOKEN}")
            assert (status, headers["Location"]) == (303, "/metrics?a=1")
            assert headers["Referrer-Policy"] == "no-referrer"
            cookie = headers["Set-Cookie"]
            assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            assert TOKEN not in cookie
            assert (await get(f"{url}/metrics", {"Cookie": cookie.partition(";")[0]}))[0] == 200
            for other in (TOKEN, "", "x\udcff"):  # the last is a byte that is no text
                assert (await get(f"{url}/metrics", {"Cookie": f"headwater={other}"}))[0] == 401

    asyncio.run(ask())


def test_redirect_stays_on_this_server() -> None:
    """An address with two slashes would lead to another one."""

    def raw(url: str) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.request("GET", f"//evil.example/x?token={TOKEN}")
        response = connection.getresponse()
        connection.close()
        return response.status, response.headers["Location"]

    async def ask() -> None:
        async with served() as url:
            assert await asyncio.to_thread(raw, url) == (303, "/evil.example/x")

    asyncio.run(ask())


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost:6066", 200), ("[::1]:1", 200)])
def test_loopback_is_read_without_a_token(host: str, status: int) -> None:
    async def ask() -> None:
        async with served("127.0.0.1", "") as url:
            assert (await get(f"{url}/metrics", {"Host": host}))[0] == status

    asyncio.run(ask())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:6066", "localhost.evil.example", ""])
def test_name_that_was_made_to_lead_to_loopback_is_refused(host: str) -> None:
    """DNS rebinding: a page of another site asks for itself, and its name leads here by now."""

    async def ask() -> None:
        async with served("127.0.0.1", "") as url:
            for path in ("/metrics", "/health/live"):
                assert (await get(url + path, {"Host": host}))[0] == 421

    asyncio.run(ask())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker.example"])
def test_listening_elsewhere_without_a_token_is_refused(host: str) -> None:
    with pytest.raises(StartupError, match=r"HEADWATER_WEB_HOST=.*HEADWATER_WEB_TOKEN"):
        WebServer(PrometheusMetrics(), lambda: True, Board("tiny"), host=host, port=0, token=SecretStr(""))


def test_worker_that_others_would_reach_does_not_start_without_a_token() -> None:
    """And says so before it looks for a broker."""
    environment = {"HEADWATER_WEB_HOST": "0.0.0.0", "HEADWATER_BROKER": "127.0.0.1:1", "HEADWATER_WEB_TOKEN": ""}
    said = CliRunner().invoke(main, ["worker"], env=environment)
    assert said.exit_code == 1
    assert "HEADWATER_WEB_TOKEN" in said.output
    assert "no Kafka broker" not in said.output


@pytest.mark.parametrize("token", ["short", "with a space in it", "with-a-lïne-beyond-ascii"])
def test_token_that_is_none_is_refused_and_not_said(token: str) -> None:
    with pytest.raises(SettingsError, match=r"HEADWATER_WEB_TOKEN: got \*\*\*; expected at least 16 char") as caught:
        load_settings(web_token=token)
    assert token not in str(caught.value)


def test_status_reads_a_guarded_worker_with_its_token_and_says_so_without() -> None:
    async def ask() -> None:
        async with served() as url:
            assert await scrape(f"{url}/metrics", SecretStr(TOKEN)) is not None
            with pytest.raises(StartupError, match="set HEADWATER_WEB_TOKEN"):
                await scrape(f"{url}/metrics", SecretStr("another-token-than-that"))

    asyncio.run(ask())


def test_worker_that_listens_everywhere_is_asked_on_loopback() -> None:
    assert metrics_url(Settings(web_host="0.0.0.0", web_port=1)) == "http://127.0.0.1:1/metrics"
    assert metrics_url(Settings(web_host="::", web_port=1)) == "http://[::1]:1/metrics"
