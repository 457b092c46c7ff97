"""Server-sent events to many browsers: each gets the whole state first, then what has changed.

A browser that comes back names the last event it has seen and gets what it missed, or the whole state where that is too
long ago. One that does not read fast enough is cut off rather than waited for; it will come back. What is sent is made
once for all, and not at all while nobody looks.
"""

import asyncio
import contextlib
import secrets
from collections import deque

from aiohttp import web

from app.state import State, joined

MOST_CLIENTS = 64
SECONDS = 1.0  # between two looks for changes
BEAT_EVERY = 5  # looks without a change after which a sign of life is sent
MISSED = 60  # events kept for who comes back
WAITING = 8  # events that may wait for a slow reader
WRITE_SECONDS = 10.0  # after which a reader that takes nothing is cut off
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # a proxy must not hold events back
}
BEAT = b"event: beat\ndata: {}\n\n"


class _Client:
    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)

    def cut_off(self) -> None:
        """End it whether it waits for an event or for a reader that takes none."""
        if self._request.transport is not None:
            self._request.transport.abort()  # what waits in its buffer would hold up the worker's end
        if self.queue.empty():
            self.queue.put_nowait(None)


class Broadcast:
    """Serves `/events`.

    Args:
        state: what is sent.
        seconds: between two looks for changes.
        most: clients at the same time; more are turned away with 503.
    """

    def __init__(self, state: State, *, seconds: float = SECONDS, most: int = MOST_CLIENTS) -> None:
        self._state = state
        self._seconds = seconds
        self._most = most
        self._clients: set[_Client] = set()
        self._boot = secrets.token_hex(4)  # numbers of an earlier worker mean nothing here
        self._number = 0
        self._sent: dict[str, bytes] = {}
        self._seen = (-1, -1)
        self._missed: deque[tuple[int, bytes]] = deque(maxlen=MISSED)
        self._looking: asyncio.Task[None] | None = None

    @property
    def clients(self) -> int:
        """How many are being served."""
        return len(self._clients)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send events until the browser leaves."""
        if len(self._clients) >= self._most:
            return web.Response(status=503, text="too many pages are open\n", headers={"Retry-After": "10"})
        if event := self._look():  # what the others get now, this one has in its first event
            self._send(event)
        first = self._first(request.headers.get("Last-Event-ID") or request.query.get("last", ""))
        client = _Client(request)
        self._clients.add(client)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking())
        response = web.StreamResponse(headers=HEADERS)
        try:
            await response.prepare(request)
            await asyncio.wait_for(response.write(first), WRITE_SECONDS)
            while (event := await client.queue.get()) is not None:
                await asyncio.wait_for(response.write(event), WRITE_SECONDS)
        except (ConnectionError, TimeoutError):  # it has left, or takes nothing
            pass
        finally:
            self._clients.discard(client)
            client.cut_off()
        return response

    async def close(self) -> None:
        """End every stream; a browser then tries to come back."""
        while self._clients:
            self._clients.pop().cut_off()
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self._looking = None

    async def _keep_looking(self) -> None:
        quiet = 0
        while self._clients:
            await asyncio.sleep(self._seconds)
            event = self._look()
            quiet = 0 if event else quiet + 1
            if event is None and quiet >= BEAT_EVERY:
                event, quiet = BEAT, 0
            if event is not None:
                self._send(event)

    def _look(self) -> bytes | None:
        """The event of what has changed since the last look, None where nothing has."""
        board = self._state.board
        sections = self._state.sections()
        changed = {name: value for name, value in sections.items() if self._sent.get(name) != value}
        reports, thinned = self._seen
        self._seen = (board.reported, board.thinned)
        if board.thinned != thinned or board.reported > reports + 1:
            changed["history"] = self._state.history()
        elif board.reported != reports:
            changed["point"] = self._state.point()
        self._sent = sections
        if not changed:
            return None
        self._number += 1
        event = self._event("changes", changed)
        self._missed.append((self._number, event))
        return event

    def _send(self, event: bytes) -> None:
        for client in list(self._clients):
            try:
                client.queue.put_nowait(event)
            except asyncio.QueueFull:
                self._clients.discard(client)
                client.cut_off()

    def _first(self, last: str) -> bytes:
        """What a browser gets that has seen the event of this id; it names none when it comes the first time."""
        boot, _, number = last.partition("-")
        missed = list(self._missed)
        if boot == self._boot and number.isdecimal() and missed and missed[0][0] <= int(number) + 1 <= self._number + 1:
            return b"".join(event for n, event in missed if n > int(number)) or BEAT
        return self._event("state", {**self._sent, "history": self._state.history()})

    def _event(self, kind: str, sections: dict[str, bytes]) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
            self._boot.encode(),
            self._number,
            kind.encode(),
            joined(sections),
        )
