"""One test for each fault that the engine and its agents once had, named for it."""

import asyncio
import contextlib
import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import TopicPartition

from streaming.config import EngineConfig
from streaming.engine import YOUNG, Engine, Group, Owned, keep_what_is_there
from streaming.errors import CheckpointError
from streaming.telemetry import NullMetrics
from streaming.transport import BatchConsumer
from streaming.unit import Chunk, Cut, Unit

SOURCE = TopicPartition("events", 0)


class Writer:
    """Fails the first cut after a moment, then writes; remembers what became durable."""

    def __init__(self) -> None:
        self.written: list[Cut] = []
        self.failed = False
        self.producer = SimpleNamespace(stop=lambda: asyncio.sleep(0))

    async def write(self, cut: Cut) -> None:
        await asyncio.sleep(0.03)
        if not self.failed:
            self.failed = True
            message = "delivery"
            raise OSError(message)
        self.written.append(cut)


def test_nothing_is_committed_beyond_a_failed_checkpoint() -> None:
    """A checkpoint fails while close(save=True) waits for its lock, at a SIGTERM or a revocation."""
    writer = Writer()

    async def fatal(exc: BaseException) -> None:
        for unit in engine.units():
            unit.close()
        await asyncio.sleep(0)

    config = EngineConfig(bootstrap="nowhere:1", app_id="app", guarantee="at_least_once", checkpoint_interval=0.01)
    engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=fatal)

    async def scenario() -> None:
        engine.groups.append(Group("events", ("events",), ()))
        unit = Unit("events", 0, {}, {SOURCE: 0})
        owned = Owned(unit, cast("Any", writer), asyncio.Lock())
        engine._owned["events", 0] = owned
        unit.emit("out", 0, None, b"in the cut that fails")
        unit.mark(SOURCE, 0)
        owned.task = asyncio.create_task(engine._checkpoint_forever(owned, 0.0))
        await asyncio.sleep(0.025)
        unit.emit("out", 0, None, b"after it")
        unit.mark(SOURCE, 1)
        with contextlib.suppress(CheckpointError):  # refusing loudly is right
            await engine.close(save=True)

    asyncio.run(scenario())
    assert writer.failed
    assert writer.written == [], "offsets were committed past outputs and state that were never written"


def test_units_are_not_given_away_while_another_closes_them() -> None:
    """Told to stop within a rebalance, a worker joined the group anew before its last save, and was fenced in it."""
    writer = Writer()
    writer.failed = True  # the writer itself is well
    config = EngineConfig(bootstrap="nowhere:1", app_id="app")

    async def scenario() -> None:
        engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
        unit = Unit("events", 0, {}, {SOURCE: 0})
        engine._owned["events", 0] = Owned(unit, cast("Any", writer), asyncio.Lock())
        unit.mark(SOURCE, 0)
        stopping = asyncio.create_task(engine.close())
        await asyncio.sleep(0.01)
        assert not writer.written
        await engine.close()  # at the revocation, after which the group may give the unit to another worker
        assert writer.written, "the unit was given away before it was saved"
        await stopping

    asyncio.run(scenario())


def test_a_full_collection_does_not_look_through_what_a_worker_began_with() -> None:
    """It took 0.2 s, in which nothing was predicted. What becomes garbage all the same goes with the next rebalance."""

    class Node:
        me: Any = None

    before = gc.get_threshold()
    began_with = Node()
    began_with.me = began_with
    here = weakref.ref(began_with)
    try:
        keep_what_is_there()
        assert not any(one is began_with for one in gc.get_objects())
        del began_with
        gc.collect()
        assert here() is not None
        keep_what_is_there()
        assert here() is None
        assert gc.get_threshold()[0] == YOUNG
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_no_immediate_prediction_that_failed_is_committed_over() -> None:
    """The same under exactly_once with predictions=immediate: the transaction had not begun, so the next one works."""
    writer = Writer()
    writer.failed = True  # the writer itself is well

    async def scenario() -> None:
        config = EngineConfig(bootstrap="nowhere:1", app_id="app", predictions="immediate")
        engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
        unit = Unit("events", 0, {}, {SOURCE: 0})
        owned = Owned(unit, cast("Any", writer), asyncio.Lock())
        engine._owned["events", 0] = owned

        async def failing() -> None:
            await asyncio.sleep(0.01)
            message = "delivery"
            raise OSError(message)

        unit.emit("log", 0, None, b"a lesson")
        unit.mark(SOURCE, 0)
        owned.sent.append(asyncio.create_task(failing()))
        owned.task = asyncio.create_task(engine._guard(engine._checkpoint(owned)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        unit.mark(SOURCE, 1)
        with contextlib.suppress(CheckpointError):  # refusing loudly is right
            await engine.close(save=True)

    asyncio.run(scenario())
    assert writer.written == [], "the lesson of offset 0 is lost: its offset was committed by the next checkpoint"


def consumer() -> Any:
    made = BatchConsumer.__new__(BatchConsumer)
    made._next, made._passed, made._last = {SOURCE: 100}, {SOURCE: 100}, {}
    made._must_seek, made._sought_generation = False, 7

    async def seek(tp: Any, offset: int) -> None:
        """Seek nowhere."""

    cast("Any", made)._seek = seek
    return made


def test_records_before_the_mark_are_never_given_again() -> None:
    """A fetch in flight over a seek gave such a chunk: `base` was the mark, its records were older."""
    unit = Unit("events", 0, {}, {SOURCE: 5})
    records: Any = [SimpleNamespace(offset=offset) for offset in range(7)]
    taken = unit.take(Chunk(SOURCE, 5, records))
    assert taken is not None
    assert [record.offset for record in taken] == [5, 6]


def test_records_fetched_before_a_seek_are_not_given_after_it() -> None:
    """A fetch that is in flight while perform_seek runs: its records follow the OLD position, not the mark."""
    made = consumer()
    made._next, made._passed = {SOURCE: 1_000}, {}
    chunks: list[Chunk] = []
    engine = SimpleNamespace(marks=lambda: {SOURCE: 500}, config=SimpleNamespace(chunk=500))
    topics = SimpleNamespace(has_room=lambda tp: False)
    made.app = SimpleNamespace(engine=engine, topics=topics, consumer_generation_id=7, should_stop=False)
    made.flow_active = True
    made.suspend_flow = asyncio.Event()
    records = [SimpleNamespace(offset=o, timestamp=0, timestamp_type=0, value=b"", key=b"") for o in range(800, 810)]
    rounds = 0

    class Stopped:
        should_stop = False

    async def wait_next_records(_seconds: float) -> Any:
        nonlocal rounds
        rounds += 1
        if rounds > 1:
            Stopped.should_stop = True
            return None, None
        await made.perform_seek()  # recovery seeks to the mark, 500, while this fetch is on its way
        return {SOURCE: records}, None

    async def deliver(work: Any, other: Any) -> None:
        other.close()
        await work

    async def callback(message: Any) -> None:
        chunks.append(message.value)

    made._wait_next_records, made.wait_first, made.callback = wait_next_records, deliver, callback
    made._note_passed = lambda tps: None
    object.__setattr__(made, "_stopped", SimpleNamespace(is_set=lambda: False))
    type_ = type("C", (BatchConsumer,), {"should_stop": False, "engine_app": property(lambda self: self.app)})
    made.__class__ = type_
    asyncio.run(made._drain_messages(Stopped))
    unit = Unit("events", 0, {}, {SOURCE: 500})
    for chunk in chunks:
        taken = unit.take(chunk)
        assert not taken, f"records from {taken[0].offset} were taken at mark 500: 300 events are skipped for good"


# -- agents and learning


def test_a_new_model_error_is_a_dead_letter_however_many_there_were() -> None:
    """1,000 old errors, come back at a start's replay and asked for by nobody, filled the memory for good."""
    from agents import learn, watch
    from agents.loop import Loop
    from learning.intake import Invalid
    from learning.records import Example, encode
    from streaming.state import StatePartition
    from tests.integration import flights_run

    config = EngineConfig(bootstrap="nowhere:1", app_id="app")
    engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
    pipeline = flights_run.named("review")
    loop = Loop(cast("Any", SimpleNamespace(engine=engine)), pipeline)
    vector = [0.0] * len(pipeline.feature_set.names)

    def record(offset: int) -> Any:
        example = Example(f"i{offset}", "k", 0, 1, 0.5, 0, vector, "of another schema", True, "label")
        return SimpleNamespace(offset=offset, timestamp=0, value=encode(example))

    asyncio.run(learn.step(loop, [record(offset) for offset in range(1_001)]))
    monitors: Any = StatePartition("m", load=cast("Any", None), dump=cast("Any", None))
    unit = Unit("log", 0, {"monitors": monitors}, {TopicPartition("log", 0): 1_000})
    (refused,) = watch.step(loop, unit, [record(1_000)])
    assert isinstance(refused, Invalid)


def test_waits_end_after_a_restart_on_quiet_topics() -> None:
    """`Unit.progress` was None until a record came, so nothing was known to have been read and no wait ended."""
    from agents.loop import Loop
    from learning.label import PendingLabels
    from learning.records import Prediction
    from streaming.state import StatePartition
    from tests.integration import flights_run

    config = EngineConfig(bootstrap="nowhere:1", app_id="app")
    engine = Engine(config, log_topic="log", metrics=NullMetrics(), fatal=lambda exc: asyncio.sleep(0))
    pipeline = flights_run.named("review")
    loop = Loop(cast("Any", SimpleNamespace(engine=engine)), pipeline)
    entries = StatePartition[bytes]("p", load=lambda _, data: data, dump=bytes)
    join = PendingLabels(entries, horizon_ms=pipeline.horizon_ms, expired="drop", corrected="log")
    join.open(Prediction("over", "k", 0, 0.5, 0, [], "s"))
    join.open(Prediction("new", "k", 10 * pipeline.horizon_ms, 0.5, 0, [], "s"))
    ends = {TopicPartition(pipeline.events.topic, 0): 2, TopicPartition(pipeline.labels.topic, 0): 0}
    unit = Unit("events", 0, {"pending": entries}, ends)  # recovered: everything there is has been read
    owned = Owned(unit, cast("Any", None), asyncio.Lock())
    for turn in range(100):
        made = owned.settled(turn * 0.5, 5.0)
        asyncio.run(engine._learn_ends(unit, ends, made))
        asyncio.run(loop.expire(unit))
    assert entries.get("over", b"??")[1:2] != b"w"


def test_whether_a_label_is_late_does_not_depend_on_when_waits_were_ended() -> None:
    """Another key's label, one ms newer, ended the wait of a label that was in time."""
    from learning.label import NEVER, PendingLabels
    from learning.records import Prediction

    def kind(expire_between: bool) -> str:
        join = PendingLabels({}, horizon_ms=1_000, expired="negative", corrected="log")
        join.open(Prediction("a", "k", 0, 0.5, 0, [], "s"))
        join.open(Prediction("b", "other", 500, 0.5, 0, [], "s"))
        join.resolve("b", "other", True, 1_001)
        if expire_between:
            join.expire(labels_to=NEVER, events_to=NEVER)
        return join.resolve("a", "k", True, 1_000).kind

    assert kind(expire_between=True) == kind(expire_between=False)


def test_an_example_of_an_older_feature_list_does_not_end_the_owner_of_the_log() -> None:
    """learn passed it over and reported it; watch raised IndexError on it at each start, for ever."""
    from learning.records import Example
    from learning.watch import Watch
    from pipelines.definition import on_feature
    from tests.integration import flights_run

    names = list(flights_run.named("review").feature_set.names)
    watch = Watch(flights_run.named("review", drift=[on_feature(names[-1])]))
    watch.observe(0, Example("i", "k", 0, 1, 0.5, 0, [0.0] * (len(names) - 1), "older", True, "label"), None)
