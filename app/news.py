"""Brings to this worker's page what the owner of the training log tells: reports, and incidents."""

import asyncio
import logging

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from app.live import Board
from learning.reports import Incident, Report
from pipelines.definition import Pipeline
from streaming import clients
from streaming.config import EngineConfig

HISTORY = 5_000  # reports that are read at the start, some hours of a stream that flows
AGAIN = 5.0  # seconds after which a broker that did not answer is asked again

log = logging.getLogger(__name__)

_report = msgspec.json.Decoder(Report).decode
_incident = msgspec.json.Decoder(Incident).decode


class News(Service):
    """Follows both topics outside the group, from some hours ago, as long as the worker runs.

    A page is worth less than the stream: whatever goes wrong here is said, and tried again.
    """

    def __init__(self, config: EngineConfig, pipeline: Pipeline, board: Board) -> None:
        super().__init__()
        self._config = config
        self._board = board
        self._reports = TopicPartition(pipeline.reports_topic, 0)
        self._incidents = TopicPartition(pipeline.incidents_topic, 0)
        self._next: dict[TopicPartition, int] = {}
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
                    await self._begin(consumer)
                    while True:
                        await self._read(consumer)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the page hears nothing new, since the broker does not answer: %r", error)
                await asyncio.sleep(AGAIN)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        tps = [self._reports, self._incidents]
        consumer.assign(tps)
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        # A report and the marker of its transaction take two offsets.
        far = {self._reports: ends[self._reports] - 2 * HISTORY, self._incidents: 0}
        for tp in tps:
            consumer.seek(tp, max(begins[tp], self._next.get(tp, far[tp])))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(timeout_ms=500, max_records=200)
        for tp, records in batches.items():
            for record in records:
                self._take(tp, record.value or b"")
                self._next[tp] = record.offset + 1
        await asyncio.sleep(0)

    def _take(self, tp: TopicPartition, value: bytes) -> None:
        try:
            if tp == self._reports:
                self._board.add_report(_report(value))
            elif value:  # a tombstone is no incident
                self._board.add_incident(_incident(value))
        except msgspec.DecodeError as error:
            log.warning("a record of %s is none that this version knows: %s", tp.topic, error)
