"""What is told reaches the board, and nothing that goes wrong ends the telling."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from app.feed import Feed
from app.live import Board
from app.news import News
from learning.reports import Alarm, Incident, Report
from pipelines.flights import flights
from streaming.config import EngineConfig

REPORTS = TopicPartition(flights.reports_topic, 0)
INCIDENTS = TopicPartition(flights.incidents_topic, 0)
ALARM = Alarm("a1", "loss", "loss", "SR", 1, 1, 1, 1, 2.0, 1.0, "The loss rose.")
INCIDENT = Incident("a1", "flights", "open", 1, 1, 1, "model", "why", [ALARM])

Records = dict[TopicPartition, list[Any]]


class Consumer:
    """Gives what there is from where it was told to begin; at the end it raises what it is given."""

    def __init__(self, there: Records, at_end: Callable[[], BaseException] | None = None) -> None:
        self._there = there
        self._at_end = at_end
        self.places: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> "Consumer":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def assign(self, tps: list[TopicPartition]) -> None:
        """Nothing to do."""

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """All begin at 0."""
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """After the last."""
        return {tp: len(self._there[tp]) for tp in tps}

    async def position(self, tp: TopicPartition) -> int:
        """Where it is."""
        return self.places[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go there."""
        self.places[tp] = offset

    async def getmany(self, **_: Any) -> Records:
        """One record of each."""
        given: Records = {}
        for tp, place in self.places.items():
            if place < len(self._there[tp]):
                given[tp] = [SimpleNamespace(offset=place, value=self._there[tp][place])]
                self.places[tp] = place + 1
        if not given and self._at_end is not None:
            raise self._at_end()
        await asyncio.sleep(0)
        return given


def report(number: int) -> bytes:
    return msgspec.json.encode(Report("flights", number, version=number))


async def until(true: Callable[[], bool]) -> None:
    """Give the others their turns until it comes true, or too many."""
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0)
    pytest.fail("it does not come true")


def test_the_newest_reports_and_all_incidents_are_read() -> None:
    there: Records = {REPORTS: [report(n) for n in range(100)], INCIDENTS: [msgspec.json.encode(INCIDENT)]}
    board, consumer = Board("flights"), Consumer(there)
    feed = Feed(flights, board, history=5)

    async def read() -> None:
        await feed.begin(consumer)
        await feed.read_to_end(consumer)

    asyncio.run(read())
    assert board.latest is not None
    assert (board.latest.version, board.reported, board.incidents()) == (99, 10, [INCIDENT])


def test_what_is_no_report_or_incident_is_passed_over() -> None:
    there: Records = {
        REPORTS: [b"", b"{}", b"\xff", report(7), None],
        INCIDENTS: [None, b"", b"nonsense", msgspec.json.encode(INCIDENT)],
    }
    board, consumer = Board("flights"), Consumer(there)
    feed = Feed(flights, board, history=50)

    async def read() -> None:
        await feed.begin(consumer)
        await feed.read_to_end(consumer)

    asyncio.run(read())
    assert (board.reported, board.incidents()) == (1, [INCIDENT])


@pytest.mark.parametrize("error", [KafkaConnectionError, OSError, TimeoutError, ValueError, RuntimeError])
def test_the_page_hears_on_after_anything_went_wrong(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """An error that was none of Kafka's ended it without a word, for as long as the worker ran."""
    there: Records = {REPORTS: [report(0)], INCIDENTS: []}
    consumers: list[Consumer] = []

    def consumer(_config: EngineConfig) -> Consumer:
        consumers.append(Consumer(there, error if len(consumers) < 2 else None))
        return consumers[-1]

    monkeypatch.setattr("app.news.clients.consumer", consumer)
    board = Board("flights")
    service = News(EngineConfig(bootstrap="nowhere:1", app_id="app"), flights, board, again=0.0)

    async def heard() -> None:
        await service.on_start()
        await until(lambda: len(consumers) == 3)
        there[REPORTS].append(report(1))
        await until(lambda: board.reported == 2)
        await service.on_stop()

    asyncio.run(asyncio.wait_for(heard(), 10))
    assert board.latest is not None
    assert (board.latest.version, board.reported) == (1, 2), "each report once"
