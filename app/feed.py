"""Reads what the owner of the training log tells, reports and incidents, into a board: for a page and for terminals."""

import asyncio
import logging
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.live import Board
from learning.records import decoded
from learning.reports import Incident, Report
from pipelines.definition import Pipeline
from streaming import clients, topics
from streaming.config import EngineConfig
from streaming.errors import StartupError

NEWEST = 50  # reports that are looked through for the newest; those of transactions that failed are not seen

log = logging.getLogger(__name__)

_report = msgspec.json.Decoder(Report)
_incident = msgspec.json.Decoder(Incident)


class Feed:
    """How far a board has come in both topics.

    Args:
        pipeline: whose topics.
        board: what is told.
        history: how many of the newest reports to begin with; all incidents are read.
    """

    def __init__(self, pipeline: Pipeline, board: Board, history: int) -> None:
        self._board = board
        self._history = history
        self._reports = TopicPartition(pipeline.reports_topic, 0)
        self._incidents = TopicPartition(pipeline.incidents_topic, 0)
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}

    async def begin(self, consumer: AIOKafkaConsumer) -> None:
        """Place the consumer: where this feed left off, or at the beginning."""
        tps = [self._reports, self._incidents]
        consumer.assign(tps)
        begins, self._ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        # A report and the marker of its transaction take two offsets.
        far = {self._reports: self._ends[self._reports] - 2 * self._history, self._incidents: 0}
        for tp in tps:
            consumer.seek(tp, max(begins[tp], self._next.get(tp, far[tp])))

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        """Take what comes next, if anything comes within half a second."""
        batches = await consumer.getmany(timeout_ms=500, max_records=200)
        for tp, records in batches.items():
            for record in records:
                self._take(tp, record.value or b"")
                self._next[tp] = record.offset + 1
        await asyncio.sleep(0)

    async def read_to_end(self, consumer: AIOKafkaConsumer) -> None:
        """Take everything that was there at `begin`."""
        for tp, end in self._ends.items():
            # By position and not by record: the last offset is a transaction's marker, which is not delivered.
            while await consumer.position(tp) < end:
                await self.read(consumer)

    def _take(self, tp: TopicPartition, value: bytes) -> None:
        try:
            if tp == self._reports:
                self._board.add_report(decoded(_report, value))
            elif value:  # a tombstone is no incident
                self._board.add_incident(decoded(_incident, value))
        except msgspec.DecodeError as error:
            log.warning("a record of %s is none that this version knows: %s", tp.topic, error)


async def board_of(pipeline: Pipeline, config: EngineConfig, *, history: int = NEWEST) -> Board:
    """A board that knows the newest report and all incidents. Raises StartupError where a topic does not exist."""
    await check(pipeline, config)
    board = Board(pipeline.name, pipeline.description)
    async with clients.consumer(config) as consumer:
        feed = Feed(pipeline, board, history)
        await feed.begin(consumer)
        await feed.read_to_end(consumer)
    return board


async def check(pipeline: Pipeline, config: EngineConfig) -> None:
    """Raise StartupError where a topic does not exist, which reading it might create."""
    names = [pipeline.reports_topic, pipeline.incidents_topic]
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, names)
    for name in names:
        if name not in counts:
            message = f"topic {name} does not exist; create it with `headwater topics create`, or start a worker"
            raise StartupError(message)


def as_json(value: Any) -> Any:
    """A struct as `--json` prints it; numbers that are none, which JSON does not have, are null."""
    return msgspec.json.decode(msgspec.json.encode(value))
