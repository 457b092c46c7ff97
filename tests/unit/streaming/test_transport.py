"""The consumer that Faust makes, as the engine has it."""

import asyncio
import gc
import logging
import weakref
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust._cython import streams
from faust.transport.conductor import Conductor
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streaming import app as streaming_app
from streaming.config import EngineConfig
from streaming.transport import BatchConductor, BatchConsumer, BatchThread
from streaming.unit import Chunk

EVENTS = TopicPartition("events", 0)


def test_a_busy_partition_does_not_wait_for_the_long_fetch_of_idle_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka leaves it out of a fetch while its records wait for the agents; Faust has that fetch wait 1.5 s."""

    async def scenario() -> Any:
        fausts = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", fetch_max_wait_ms=1500)
        assert fausts._fetch_max_wait_ms == 1500  # what aiokafka's own start takes it from
        monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda self, transport: fausts)
        thread = object.__new__(BatchThread)
        config = EngineConfig(bootstrap="127.0.0.1:1", app_id="app", role="watch")
        thread.app = cast("Any", SimpleNamespace(engine=SimpleNamespace(config=config)))
        made = thread._create_worker_consumer(None)
        await fausts.stop()
        return made

    consumer = asyncio.run(scenario())
    assert consumer._fetch_max_wait_ms == 100
    assert consumer._group_id == "app-watch"
    assert consumer._isolation_level == "read_committed"
    assert "tuned" in consumer.start.__qualname__


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, timestamp=0, timestamp_type=0) for offset in offsets]


class Flowing(BatchConsumer):
    """One between two rebalances."""

    flow_active = True


class Agents:
    """A consumer of one partition, with a queue in place of an agent's stream."""

    def __init__(self, maxsize: int, size: int = 500) -> None:
        self.queue: Any = ThrowableQueue(maxsize=maxsize, flow_control=FlowControlEvent(initially_suspended=False))
        self.size = size
        self.waited: int = 0
        conductor: Any = BatchConductor.__new__(BatchConductor)
        channel = SimpleNamespace(_subscribers=[SimpleNamespace(queue=self.queue)])
        conductor._tp_index = {TP(*EVENTS): [channel]}
        app = SimpleNamespace(topics=conductor, consumer_generation_id=1)
        self.consumer: Any = cast("Any", Flowing).__new__(Flowing)
        self.consumer._next, self.consumer._last, self.consumer._must_seek = {}, {}, False
        self.consumer.app, self.consumer.suspend_flow = app, asyncio.Event()
        self.consumer.callback, self.consumer.wait_first = self._callback, self._wait_first
        self.consumer._note_passed = lambda tps: None

    async def _callback(self, message: Any) -> None:
        await self.queue.put(message.value)

    async def _wait_first(self, work: Any, other: Any) -> None:
        self.waited += 1
        other.close()
        await work

    async def deliver(self, *offsets: int, generation: int = 1) -> None:
        self.consumer.app.consumer_generation_id = generation
        await self.consumer._deliver({EVENTS: records(*offsets)}, None, generation, self.size)

    def chunks(self) -> list[tuple[int, list[int]]]:
        found = []
        while not self.queue.empty():
            chunk: Chunk = self.queue.get_nowait()
            found.append((chunk.base, [record.offset for record in chunk.begin()]))
        return found


def test_records_join_the_chunk_that_still_waits_for_its_agent() -> None:
    async def scenario() -> None:
        agents = Agents(maxsize=8)
        await agents.deliver(5, 6)
        await agents.deliver(8)
        assert agents.chunks() == [(5, [5, 6, 8])]
        await agents.deliver(9)  # an agent has begun with the first
        await agents.deliver(10, generation=2)  # and this is of another life of the group
        assert agents.chunks() == [(9, [9]), (10, [10])]
        assert not agents.waited

    asyncio.run(scenario())


def test_a_chunk_grows_no_longer_than_one_that_is_fetched() -> None:
    async def scenario() -> None:
        agents = Agents(maxsize=8, size=4)
        await agents.deliver(0, 1, 2)
        await agents.deliver(3)
        await agents.deliver(4, 5)
        assert agents.chunks() == [(0, [0, 1, 2, 3]), (4, [4, 5])]

    asyncio.run(scenario())


def test_nothing_joins_a_chunk_that_a_rebalance_dropped() -> None:
    """It would be lost with it; as a chunk of its own it is refused, for it does not follow."""

    async def scenario() -> None:
        agents = Agents(maxsize=8)
        await agents.deliver(5, 6)
        agents.queue.clear()
        gc.collect()
        await agents.deliver(7)
        assert agents.chunks() == [(7, [7])]

    asyncio.run(scenario())


def test_only_a_chunk_for_which_there_is_no_room_is_waited_for() -> None:
    async def scenario() -> None:
        agents = Agents(maxsize=2, size=1)
        await agents.deliver(0, 1)
        assert agents.waited == 0
        delivering = asyncio.create_task(agents.deliver(2))
        await asyncio.sleep(0)
        assert agents.waited == 1
        assert agents.queue.qsize() == 2
        assert agents.queue.get_nowait().base == 0
        await delivering
        assert [base for base, _ in agents.chunks()] == [1, 2]

    asyncio.run(scenario())


class Acking:
    """A worker's consumer and conductor, and an agent's stream as Faust runs it where it is compiled."""

    def __init__(self, conductor: type[Conductor]) -> None:
        topics: Any = conductor.__new__(conductor)
        topics._acking_topics = {EVENTS.topic}
        self.consumer: Any = cast("Any", Flowing).__new__(Flowing)
        self.consumer._acked, self.consumer._acked_index = defaultdict(list), defaultdict(set)
        self.consumer._committed_offset, self.consumer._unacked_messages = defaultdict(lambda: None), weakref.WeakSet()
        self.consumer._n_acked, self.consumer._waiting_for_ack = 0, None
        conf = faust.App("acks", broker="kafka://127.0.0.1:1").conf
        self.consumer.app = SimpleNamespace(topics=topics, consumer=self.consumer, conf=conf)
        sensors = ("stream_event_in", "stream_event_out", "message_in", "message_out")
        stream = SimpleNamespace(
            app=self.consumer.app,
            channel=SimpleNamespace(__anext__=None),
            loop=None,
            on_merge=None,
            _processors=(),
            _skipped_value=None,
            **{f"_on_{name}": lambda *_: None for name in sensors},
        )
        self.stream = streams.StreamIterator(stream)

    def finish(self, offset: int) -> None:
        """An agent is done with a chunk."""
        chunk = Chunk(EVENTS, offset, records(offset), 1)
        message = BatchConsumer._message(chunk)
        message.incref(1)
        self.stream.after(SimpleNamespace(message=message), True, None)
        assert message.acked


def test_no_ack_is_kept_since_no_commit_of_faust_ever_takes_it_out() -> None:
    """A soak found it: some hundred bytes a chunk, 40 MB an hour, and the less a worker has to do the more chunks."""
    fausts, ours = Acking(Conductor), Acking(BatchConductor)
    for offset in range(100):
        fausts.finish(offset)
        ours.finish(offset)
    assert len(fausts.consumer._acked[TP(*EVENTS)]) == 100, "Faust has changed: look whether acks_enabled_for is needed"
    assert not ours.consumer._acked
    assert not ours.consumer._acked_index


def test_messages_of_debug_are_not_made_where_only_warnings_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's spinner turns with every message, so from WARNING on each was made: a tenth of a worker's time."""
    levels = []

    def execute(worker: faust.Worker) -> None:
        worker.on_setup_root_logger(logging.root, logging.WARNING)
        levels.append(logging.root.level)

    monkeypatch.setattr(faust.Worker, "execute_from_commandline", execute)
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    made = faust.App("spinner", broker="kafka://127.0.0.1:1")
    made.failure = None  # type: ignore[attr-defined]
    streaming_app.run(made, loglevel="WARNING")  # type: ignore[arg-type]
    assert levels == [logging.WARNING]
