"""The worker's web server: `/metrics`, `/health/live`, `/health/ready`, and the live page at `/`.

On loopback whoever has a login on the machine may read it; elsewhere, and wherever a token is set, only who knows that.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web
from mode import Service
from pydantic import SecretStr

from app.live import Board
from app.metrics import CONTENT_TYPE, PrometheusMetrics
from app.page import Page
from streaming.errors import StartupError

OPEN = "/health/"
COOKIE = "headwater"
PARAMETER = "token"
NO_TOKEN = SecretStr("")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there. A name other than localhost may be any address.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "::", "worker")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_token(host: str, token: SecretStr) -> None:
    """Raise StartupError where others would reach the web server and there is no token to know them by."""
    if not token.get_secret_value() and not is_loopback(host):
        message = (
            f"HEADWATER_WEB_HOST={host} is reached from other machines, expected a HEADWATER_WEB_TOKEN (or"
            " HEADWATER_WEB_TOKEN_FILE) that they must send; set one, as of `openssl rand -hex 32`, or listen on"
            " 127.0.0.1"
        )
        raise StartupError(message)


class Guard:
    """Lets a request pass that knows the token, by header or by cookie, or where none is asked for.

    A browser cannot be told to send a header, so `?token=` gives it a cookie and takes the token out of the address.
    The cookie is made of the token, so it is good with every worker that has the same one, and does not tell it.
    """

    def __init__(self, host: str, token: SecretStr) -> None:
        require_token(host, token)
        self._token = token
        self._names = LOOPBACK_NAMES | {host, f"[{host}]"} if is_loopback(host) else None

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware."""
        if self._names is not None and _name(request.headers.get("Host", "")) not in self._names:
            # A page of another site, whose name has been made to lead here, would read what only this machine may.
            return _refused(421, "got another Host than this worker's address, expected 127.0.0.1 or localhost")
        if not self._token.get_secret_value() or request.path.startswith(OPEN):
            return await handler(request)
        if PARAMETER in request.query:
            return self._let_in(request)
        if self._knows(request):
            return await handler(request)
        return _refused(401, "expected `Authorization: Bearer` with the worker's HEADWATER_WEB_TOKEN")

    def _knows(self, request: web.Request) -> bool:
        scheme, _, said = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(said.strip())
        return _same(request.cookies.get(COOKIE, ""), self._cookie())

    def _is_token(self, said: str) -> bool:
        return _same(said, self._token.get_secret_value())

    def _cookie(self) -> str:
        return hmac.new(self._token.get_secret_value().encode(), b"headwater web", hashlib.sha256).hexdigest()

    def _let_in(self, request: web.Request) -> web.Response:
        if not self._is_token(request.query[PARAMETER]):
            return _refused(401, "got another token than the worker's HEADWATER_WEB_TOKEN")
        headers = {"Location": _path(request), "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        response = web.Response(status=303, headers=headers)
        response.set_cookie(COOKIE, self._cookie(), httponly=True, samesite="Strict", path="/")
        return response


def _same(said: str, expected: str) -> bool:
    """Whether they are the same, in a time that does not tell how much of it is. What was said may be no text."""
    return hmac.compare_digest(said.encode(errors="replace"), expected.encode())


def _name(host: str) -> str:
    """A Host header without its port.

    >>> _name("localhost:6066"), _name("[::1]:6066"), _name("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    head, bracket, _ = host.partition("]")
    return head + bracket if bracket else host.partition(":")[0].lower()


def _path(request: web.Request) -> str:
    """Where to go on without the token, on this server: two slashes at the beginning would be another one."""
    query = [(name, value) for name, value in request.query.items() if name != PARAMETER]
    return str(request.rel_url.with_path("/" + request.path.lstrip("/")).with_query(query))


def _refused(status: int, message: str) -> web.Response:
    headers = {"WWW-Authenticate": 'Bearer realm="headwater"'} if status == 401 else {}
    return web.json_response({"error": message}, status=status, headers=headers)


class WebServer(Service):
    """Serves from the worker's first moment, also while it recovers. Loopback unless told otherwise."""

    def __init__(
        self,
        metrics: PrometheusMetrics,
        ready: Callable[[], bool],
        board: Board,
        *,
        host: str,
        port: int,
        token: SecretStr = NO_TOKEN,
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._page = Page(board, metrics)
        self._is_ready = ready
        self._host = host
        self._port = port
        self._guard = Guard(host, token)
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        """Listen. Raises StartupError when the port cannot be had."""
        guard = self._guard

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await guard(request, handler)

        site = web.Application(middlewares=[guarded])
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
