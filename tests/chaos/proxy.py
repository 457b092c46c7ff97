"""A TCP proxy between one worker and its broker that can be cut, slowed and made silent, in one direction or both.

As on a real network nothing is lost inside a connection that lives: what is held back arrives when the network is well
again, however late. That is what makes a zombie: a worker whose last request reaches the broker after its units went to
another.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal, Self

HOST = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: closing sends RST and forgets what was not delivered
PIECE = 65_536  # bytes

Direction = Literal["up", "down"]
"""`up`: from the worker to the broker. `down`: from the broker to the worker."""


class Proxy:
    """Hands everything that comes to its port on to another port of this machine, in a thread of its own.

    Args:
        target: the port that the broker listens on.

    Attributes:
        port: where the proxy listens; what the broker has to advertise.
        accepted: how many connections there have been.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._delay = 0.0
        self._refuses = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._gates: dict[Direction, asyncio.Event] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._loop.call_soon(lambda: self._loop.create_task(self._serve(ready)))
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- what can be done to the network

    def heal(self) -> None:
        """Everything passes again at once, also what was held back."""
        self._do(self._healed)

    def cut(self) -> None:
        """Reset every connection, and each new one, until it is healed."""
        self._do(self._cut)

    def drop(self) -> None:
        """Reset every connection that there is now; new ones are served."""
        self._do(self._reset_all)

    def silence(self, *directions: Direction) -> None:
        """Accept connections and bytes, and hand nothing on in these directions (both where none is named)."""
        self._do(lambda: self._silenced(directions or ("up", "down")))

    def delay(self, seconds: float) -> None:
        """Hold each piece for so long, in each direction."""
        self._do(lambda: setattr(self, "_delay", seconds))

    # -- inside, in the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Callable[[], object]) -> None:
        async def done() -> None:
            work()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._gates = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._healed()
        self._server = await asyncio.start_server(self._accept, sock=self._listener)
        ready.set()

    def _healed(self) -> None:
        self._refuses, self._delay = False, 0.0
        for gate in self._gates.values():
            gate.set()

    def _silenced(self, directions: tuple[Direction, ...]) -> None:
        for one in directions:
            self._gates[one].clear()

    def _cut(self) -> None:
        self._refuses = True
        self._reset_all()

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)

    def _end(self) -> None:
        self._server.close()
        self._reset_all()
        for pump in self._pumps:
            pump.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refuses:
            _reset(writer)
            return
        try:
            from_broker, to_broker = await asyncio.open_connection(HOST, self._target)
        except OSError:  # as if the broker itself had refused it
            _reset(writer)
            return
        pair = (writer, to_broker)
        self._pairs.add(pair)
        pumps = [
            asyncio.create_task(self._pump("up", reader, to_broker)),
            asyncio.create_task(self._pump("down", from_broker, writer)),
        ]
        self._pumps.update(pumps)
        try:
            await asyncio.wait(pumps)
        finally:
            self._pumps.difference_update(pumps)
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _pump(self, way: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._gates[way].wait()
                writer.write(piece)
                await writer.drain()
        # An end or a reset travels like bytes: through a silent network it does not come either.
        await self._gates[way].wait()
        if writer.can_write_eof() and not writer.is_closing():
            with contextlib.suppress(OSError):
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
