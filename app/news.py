"""Brings to this worker's page what the owner of the training log tells: reports, and incidents."""

import asyncio
import logging

from aiokafka.errors import KafkaError
from mode import Service

from app.feed import Feed
from app.live import Board
from pipelines.definition import Pipeline
from streaming import clients
from streaming.config import EngineConfig

HISTORY = 5_000  # reports that are read at the start, some hours of a stream that flows
AGAIN = 5.0  # seconds after which a broker that did not answer is asked again

log = logging.getLogger(__name__)


class News(Service):
    """Follows both topics outside the group, from some hours ago, as long as the worker runs.

    A page is worth less than the stream: whatever goes wrong here is said, and tried again.
    """

    def __init__(self, config: EngineConfig, pipeline: Pipeline, board: Board, *, again: float = AGAIN) -> None:
        super().__init__()
        self._config = config
        self._feed = Feed(pipeline, board, HISTORY)
        self._again = again
        self._following: asyncio.Task[None] | None = None

    async def on_start(self) -> None:
        """Begin; nobody waits for it."""
        self._following = asyncio.create_task(self._follow_for_ever())

    async def on_stop(self) -> None:
        """End."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow_for_ever(self) -> None:
        while True:
            try:
                async with clients.consumer(self._config) as consumer:
                    await self._feed.begin(consumer)
                    while True:
                        await self._feed.read(consumer)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the page hears nothing new, since the broker does not answer: %r", error)
            except Exception:
                log.exception("the page hears nothing new for a mistake of this program")
            await asyncio.sleep(self._again)
