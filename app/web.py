"""The worker's web server: `/metrics`, `/health/live`, `/health/ready`, and the live page at `/`."""

from collections.abc import Callable

from aiohttp import web
from mode import Service

from app.live import Board
from app.metrics import CONTENT_TYPE, PrometheusMetrics
from app.page import Page
from streaming.errors import StartupError


class WebServer(Service):
    """Serves from the worker's first moment, also while it recovers. Loopback unless told otherwise."""

    def __init__(
        self, metrics: PrometheusMetrics, ready: Callable[[], bool], board: Board, *, host: str, port: int
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._page = Page(board, metrics)
        self._is_ready = ready
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        """Listen. Raises StartupError when the port cannot be had."""
        site = web.Application()
        site.add_routes(
            [
                web.get("/metrics", self._serve_metrics),
                web.get("/health/live", self._serve_live),
                web.get("/health/ready", self._serve_ready),
            ]
        )
        self._page.add_to(site)
        self._runner = web.AppRunner(site, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            message = (
                f"the web server cannot listen on {self._host}:{self._port} ({error.strerror or error});"
                " set HEADWATER_WEB_PORT to a free port, or HEADWATER_WEB_HOST to an address of this machine"
            )
            raise StartupError(message) from error

    async def on_stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that it listens on, also where any free one was asked for."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _serve_live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _serve_ready(self, _request: web.Request) -> web.Response:
        ready = self._is_ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)
