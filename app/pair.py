"""A worker of two processes: one predicts, one watches over it, and neither goes on without the other.

The first starts the second, tells it when all has been seen to, and has `/metrics` and the page; the second tells it
every second what it measures, over a socket between the two. Their work meets in Kafka alone.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import msgspec
from mode import Service

from app.metrics import PrometheusMetrics, Said
from app.settings import Settings
from streaming.checkpoint import Step
from streaming.config import Role
from streaming.errors import EngineError
from streaming.telemetry import OF_WHO_WATCHES

log = logging.getLogger(__name__)

SECONDS = 1.0  # between two times that the one tells the other
PATIENCE = 8.0  # seconds that the second gets to end in good order, less than the first has
GIVES_WAY = 10  # of nice's: where cores are short, who predicts goes before who watches, which makes up for it later
# Forked, it need not import everything again, which takes two seconds. Elsewhere system libraries do not bear that.
START = "fork" if sys.platform == "linux" else "spawn"
NUMBER = struct.Struct("<I")  # a count, or the length of what follows

_decode = msgspec.msgpack.Decoder(Said).decode
_encode = msgspec.msgpack.Encoder().encode


class Other:
    """The other process of a pair, as this one sees it.

    Attributes:
        end: this one's end of the socket between them.
        process: the second one; None in the second itself.
    """

    def __init__(self, end: socket.socket, process: BaseProcess | None = None) -> None:
        self.end = end
        self.process = process

    def go(self, partitions: int) -> None:
        """Have the second one begin. That it may have ended meanwhile is noticed later."""
        try:
            self.end.sendall(NUMBER.pack(partitions))
        except OSError:
            log.debug("the process that watches is gone before it began")

    def told(self) -> int | None:
        """How many partitions the events topic has, when the first one says so; None where it has ended."""
        said = self.end.recv(NUMBER.size, socket.MSG_WAITALL)
        return NUMBER.unpack(said)[0] if len(said) == NUMBER.size else None


def role_of(settings: Settings, role: Role) -> Settings:
    """The settings of one process of a pair."""
    return settings.model_copy(update={"role": role})


@contextmanager
def begun(
    main: Callable[[Settings, Step, Other], None], settings: Settings, step: Step, *, start: str = START
) -> Iterator[Other]:
    """The second process, which waits until it is told to go, as the first sees it. Afterwards it has ended.

    Args:
        main: what the second does.
        settings: passed on to it.
        step: likewise.
        start: how, as `multiprocessing` calls it.
    """
    mine, its = socket.socketpair()
    process = multiprocessing.get_context(start).Process(  # type: ignore[attr-defined]  # every context has one
        target=_second, args=(main, settings, step, its, mine), name="watch", daemon=True
    )
    process.start()
    its.close()  # or its end would not be seen
    try:
        yield Other(mine, process)
    finally:
        mine.close()  # which it takes as a reason to end
        process.join(PATIENCE)
        process.kill()


def _second(
    main: Callable[[Settings, Step, Other], None],
    settings: Settings,
    step: Step,
    mine: socket.socket,
    its: socket.socket,
) -> None:
    its.close()
    # Ctrl-C reaches both; while this one waits, the first one's end is its.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(GIVES_WAY)
    main(settings, step, Other(mine))


class Telling(Service):
    """In the second process: tells the first what this one measures, and ends it when the first is gone."""

    def __init__(self, other: Other, metrics: PrometheusMetrics) -> None:
        super().__init__()
        self._other = other
        self._metrics = metrics
        self._writer: asyncio.StreamWriter | None = None

    async def on_start(self) -> None:
        """Begin."""
        reader, self._writer = await asyncio.open_connection(sock=self._other.end)
        self.add_future(self._tell(self._writer))
        self.add_future(self._listen(reader))

    async def on_stop(self) -> None:
        """Say no more, which the first sees."""
        if self._writer is not None:
            self._writer.close()

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.should_stop:
                said = _encode(self._metrics.said(OF_WHO_WATCHES))
                writer.write(NUMBER.pack(len(said)) + said)
                await writer.drain()  # one that does not read is waited for, so nothing piles up
                await self.sleep(SECONDS)
        except ConnectionError:  # it is gone, which the other one of these two sees as well
            pass

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while await _or_nothing(reader.read(1)):
            pass
        if not self.should_stop:
            log.warning("the process that predicts is gone, so this one, which watches, ends too")
            os.kill(os.getpid(), signal.SIGTERM)


class Hearing(Service):
    """In the first process: shows what the second measures, and ends this one when the second is gone.

    Args:
        other: the second.
        metrics: where it is shown.
        fail: ends this process, for a reason.
    """

    def __init__(
        self, other: Other, metrics: PrometheusMetrics, fail: Callable[[BaseException], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__()
        self._other = other
        self._metrics = metrics
        self._fail = fail
        self._writer: asyncio.StreamWriter | None = None
        self._ended: asyncio.Task[int] | None = None

    async def on_start(self) -> None:
        """Begin."""
        # It writes nothing, but the socket would be closed with its writer if nobody had that.
        reader, self._writer = await asyncio.open_connection(sock=self._other.end)
        self.add_future(self._hear(reader))

    async def on_stop(self) -> None:
        """End the second, in good order if it does so in time."""
        assert self._other.process is not None
        assert self._writer is not None
        self._other.process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(self._end())
        except TimeoutError:
            self._other.process.kill()
        self._writer.close()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while head := await _or_nothing(reader.readexactly(NUMBER.size)):
            body = await _or_nothing(reader.readexactly(NUMBER.unpack(head)[0]))
            if body:
                self._metrics.hear(_decode(body))
        code = await asyncio.shield(self._end())
        if self.should_stop:
            return
        if code == 0:  # it was told to stop, so this one is
            os.kill(os.getpid(), signal.SIGTERM)
            return
        message = (
            f"the process that watches beside this one ended with code {code}; what it said last is above. Start the"
            " worker again when that is seen to, and both go on from where they were"
        )
        await self._fail(EngineError(message))

    def _end(self) -> "asyncio.Task[int]":
        """The second one's exit code, when it has one. Waited for once: who waits for a process takes its code away."""
        if self._ended is None:
            self._ended = asyncio.create_task(asyncio.to_thread(self._code))
        return self._ended

    def _code(self) -> int:
        assert self._other.process is not None
        self._other.process.join()
        code = self._other.process.exitcode
        assert code is not None
        return code


async def _or_nothing(reading: Coroutine[Any, Any, bytes]) -> bytes:
    """What is read; nothing where the other end is closed."""
    try:
        return await reading
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
