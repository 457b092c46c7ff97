"""The live page: `/`, its files, its events and its state. Nothing it needs comes from another machine."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from importlib import metadata, resources

from aiohttp import hdrs, web

from app.broadcast import Broadcast
from app.live import Board
from app.metrics import PrometheusMetrics
from app.state import State

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PLOTLY = "plotly.min.js"

# Plotly makes one style element that is empty, whose rules it adds by calls, and one for maps, of which there are none.
# The hashes allow these two and no other inline style; a test with a browser fails when another version has others.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
MAP_STYLE = "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='"
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self';"
    f" style-src 'self' {EMPTY_STYLE} {MAP_STYLE};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER = "public, max-age=31536000, immutable"  # a file that changes gets another address


class Files:
    """The page's files by name, each read once and kept compressed.

    Attributes:
        build: hash of all of them together; it is in their address.
        html: the page, with their addresses in it.
    """

    def __init__(self) -> None:
        folder = resources.files("app") / "static"
        found = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
        html = found.pop("index.html").decode()
        digest = hashlib.sha256(html.encode())
        for name in sorted(found):
            digest.update(name.encode() + found[name])
        self.build = digest.hexdigest()[:16]
        self._plotly = f"plotly-{metadata.version('plotly')}"
        self._makers: dict[tuple[str, str], Callable[[], bytes]] = {(self._plotly, PLOTLY): plotly}
        self._compressed = {(self.build, name): gzip.compress(body, mtime=0) for name, body in found.items()}
        self.html = html.replace("{build}", self.build).replace("{plotly}", f"{self._plotly}/{PLOTLY}")

    async def compressed(self, folder: str, name: str) -> bytes | None:
        """The file, gzipped; None where there is none."""
        key = (folder, name)
        if key not in self._compressed and key in self._makers:
            body = await asyncio.to_thread(self._makers[key])
            self._compressed[key] = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
        return self._compressed.get(key)


def plotly() -> bytes:
    """Plotly's JavaScript, 4.8 MB; imported late, since most workers' pages are never looked at."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    return str(get_plotlyjs()).encode()


class Page:
    """Its handlers; `add_to` puts them into a site."""

    def __init__(self, board: Board, metrics: PrometheusMetrics) -> None:
        self._files = Files()
        self._state = State(board, metrics, self._files.build)
        self.broadcast = Broadcast(self._state)

    def add_to(self, site: web.Application) -> None:
        """Add the routes, and end the streams when the site ends: they would go on for ever."""
        site.add_routes(
            [
                web.get("/", self._serve_page),
                web.get("/static/{folder}/{name}", self._serve_file),
                web.get("/events", self.broadcast.serve, allow_head=False),  # its head would have no end either
                web.get("/api/state", self._serve_state),
            ]
        )
        site.on_shutdown.append(self._end)

    async def _end(self, _site: web.Application) -> None:
        await self.broadcast.close()

    async def _serve_page(self, _request: web.Request) -> web.Response:
        headers = {**SAFE, "Content-Security-Policy": POLICY, hdrs.CACHE_CONTROL: "no-cache"}
        return web.Response(text=self._files.html, content_type="text/html", headers=headers)

    async def _serve_file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = await self._files.compressed(request.match_info["folder"], name)
        if body is None:
            raise web.HTTPNotFound(text="no such file\n")
        headers = {**SAFE, hdrs.CACHE_CONTROL: FOREVER, hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        else:
            body = await asyncio.to_thread(gzip.decompress, body)
        kind = TYPES[name[name.rindex(".") :]]
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _serve_state(self, _request: web.Request) -> web.Response:
        headers = {**SAFE, hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(body=self._state.whole(), content_type="application/json", headers=headers)
