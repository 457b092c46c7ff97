"""A worker without a broker: its own agents, join, units, tables and checkpoints, and an account of every record.

Only what talks to Kafka is stood in for: records come from lists, and a cut goes into lists, by way of aiokafka's own
record batches, since what they cannot hold would end a worker.
"""

import functools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from operator import sub
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import faust
import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

from agents import label, learn, score, watch
from agents.loop import Loop
from agents.report import Reporter
from agents.snapshots import SnapshotPolicy, Snapshots
from learning.intake import MAX_NAME
from learning.label import WATERMARKS
from learning.records import Prediction, decode_log
from pipelines.definition import Pipeline
from streaming.clients import MAX_REQUEST_BYTES
from streaming.config import EngineConfig
from streaming.engine import Engine, Group, Owned
from streaming.follower import Lesson
from streaming.tables import StateTable
from streaming.telemetry import CounterName, RecordingMetrics
from streaming.unit import Chunk, Output, Unit
from tables import monitors, pending, profiles
from tests.fuzz.inputs import record

SLOWEST = 5.0  # seconds of processor time for one chunk, of whatever size its records are
LARGEST = 60_000  # bytes of what is written for a record, dead letters apart
CLASS = MAX_NAME + 40  # and for each class that a model knows

PREDICTION = msgspec.json.Decoder(Prediction)


class Broken(AssertionError):
    """An invariant does not hold."""


def hold(condition: object, words: str) -> None:
    """Raise Broken unless the condition is true."""
    if not condition:
        raise Broken(words)


class Counts(NamedTuple):
    """What is counted for events and labels."""

    events: int
    predicted: int
    repeated: int
    dead: int
    matched: int
    early: int
    duplicate: int
    corrected: int
    late: int
    expired: int
    orphan: int


COUNTED = ("events_total", "predictions_total", "duplicate_events_total", "dead_letters_total", *Counts._fields[4:])


class Totals(RecordingMetrics):
    """Knows the sum of each counter over its labels too, and how many labels came to what; keeps no observations."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def count(self, name: CounterName, value: float = 1.0, **labels: str) -> None:
        super().count(name, value, **labels)
        self.counts[name] += int(value)
        if name == "labels_total":
            self.counts[labels["outcome"]] += int(value)

    def observe(self, name: Any, value: float, **labels: str) -> None:
        super().observe(name, value, **labels)
        self.observations.clear()


class AccountedUnit(Unit):
    """Tells of each mark, which comes with the record's effects and before the next record."""

    account: Any = None

    def mark(self, tp: TopicPartition, offset: int) -> None:
        super().mark(tp, offset)
        self.account(tp, offset)


class Batches:
    """A producer's record batches, filled and thrown away."""

    def create_batch(self) -> Any:
        return BatchBuilder(900_000, 0, is_transactional=1)


@functools.cache
def _tables(pipeline: Pipeline) -> dict[str, dict[str, StateTable[Any]]]:
    """The worker's tables by group and name; they hold no state of their own."""
    app = faust.App(f"fuzz-{pipeline.name}", broker="kafka://nowhere:1", autodiscover=False)
    of_events: tuple[StateTable[Any], ...] = (profiles.create(app, pipeline, 1), pending.create(app, 1))
    return {"events": {t.name: t for t in of_events}, "log": {monitors.NAME: monitors.create(app, pipeline)}}


class Worker:
    """One life of a worker.

    Attributes:
        log: the training log: the worker's own records, and those that others put there.
        consumed: records by topic.
    """

    def __init__(self, pipeline: Pipeline, *, limit: float = 1.0) -> None:
        self.pipeline = pipeline
        self.metrics = Totals()
        self.failure: BaseException | None = None
        config = EngineConfig(bootstrap="nowhere:1", app_id="fuzz", dead_letter_limit=limit, checkpoint_interval=1e9)
        self.engine = Engine(config, log_topic=pipeline.training_log_topic, metrics=self.metrics, fatal=self._fail)
        self.loop = Loop(cast("Any", SimpleNamespace(engine=self.engine, fail=self._fail)), pipeline)
        store: Any = SimpleNamespace(read=self._no_snapshots)
        self.loop.snapshots = Snapshots(self.loop, store, SnapshotPolicy(0, 1e9, 4))
        names = (pipeline.events.topic, pipeline.labels.topic, pipeline.training_log_topic)
        self.events, self.labels, self.lessons = (TopicPartition(name, 0) for name in names)
        self._tables = _tables(pipeline)
        self.unit = self._owned("events", self.events, self.labels)
        self.log_unit = self._owned("log", self.lessons)
        self.log: list[ConsumerRecord[Any, Any]] = []
        self.learned = self.watched = 0
        self.consumed: Counter[TopicPartition] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.letters: Counter[TopicPartition] = Counter()
        self.changelog: dict[str, dict[bytes, bytes | None]] = {}
        self.slowest = 0.0
        self._before = Counts(*[0] * len(COUNTED))
        self._raised: set[int] = set()

    def _owned(self, group: str, *tps: TopicPartition) -> AccountedUnit:
        tables = self._tables[group]
        self.engine.groups.append(Group(group, tuple(tp.topic for tp in tps), tuple(tables.values())))
        unit = AccountedUnit(group, 0, {n: t.new_partition() for n, t in tables.items()}, dict.fromkeys(tps, 0))
        unit.account = self._account
        self.loop.opened(unit)
        self.engine._owned[group, 0] = Owned(unit, cast("Any", None), cast("Any", None))
        return unit

    async def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error

    async def _no_snapshots(self) -> list[Any]:
        return []

    # -- feeding

    async def feed(self, tp: TopicPartition, records: Sequence["ConsumerRecord[Any, Any]"]) -> None:
        """A chunk of events or labels, once more from its middle as after a seek, and the account of it."""
        unit = self.engine.unit_of(tp)
        hold(unit is not None, "the unit is closed")
        base = unit.marks[tp]  # type: ignore[union-attr]
        step = score.step if tp == self.events else label.step
        await self._timed(Chunk(tp, base, [*records]), step)
        hold(unit.marks[tp] == records[-1].offset + 1, "the mark is not behind the last record")  # type: ignore[union-attr]
        self.consumed[tp] += len(records)
        again = [*records[len(records) // 2 :]]
        await self._timed(Chunk(tp, base, again), step)  # done already, so nothing comes of it

    async def _timed(self, chunk: Chunk, step: Any, *, many: bool = False) -> None:
        started = time.process_time()
        await (self.loop.each_of_many if many else self.loop.each)(chunk, step)
        took = time.process_time() - started
        self.slowest = max(self.slowest, took)
        self._check()
        hold(took < SLOWEST, f"a chunk of {len(chunk.records)} records took {took:.1f} s")

    def _check(self) -> None:
        if self.failure is not None:
            raise Broken(f"the worker would end: {self.failure!r}") from self.failure  # noqa: EM102

    def put(self, parts: Sequence[tuple[Any, ...]]) -> None:
        """Somebody else's records for the training log."""
        for part in parts:
            self.log.append(record(self.lessons.topic, len(self.log), part))

    async def expire(self) -> None:
        """What the engine has done now and then: the labels and events so far are all there are."""
        self.unit.ends_at(self.unit.marks, self.unit.progress)
        before = self._snapshot()
        await self.loop.look_after(self.unit)
        ended = Counts(*map(sub, self._snapshot(), before))
        hold(sum(ended) == ended.expired + ended.orphan, f"expiry came to {ended}")
        self._before = self._snapshot()

    async def follow(self) -> None:
        """Learn and watch what is new in the log."""
        records = self.log[self.learned :]
        if records:
            started = time.process_time()
            with self._reading_back():
                for one in records:
                    await self._learn(one)
            hold(time.process_time() - started < SLOWEST, f"{len(records)} records took too long to learn")
            self.learned = len(self.log)
            self._before = self._snapshot()
            await self._timed(Chunk(self.lessons, self.log_unit.marks[self.lessons], records), watch.step, many=True)
            Reporter(self.loop).consider(self.log_unit)
            self.consumed[self.lessons] += len(records)

    async def _learn(self, one: "ConsumerRecord[Any, Any]") -> None:
        """Learned, or counted as an error, or a control record, or passed over while learning is frozen."""
        totals, learner = self.metrics.counts, self.loop.learner
        before = totals["training_examples_total"], totals["model_errors_total"], learner.version
        learning = learner.learning
        await learn.learn(self.loop, Lesson([one], one.offset + 1, one.offset + 1))
        learned = totals["training_examples_total"] - before[0]
        errors = totals["model_errors_total"] - before[1]
        try:
            entry: Any = decode_log(one.value or b"")
        except msgspec.DecodeError:
            hold((learned, errors, self.loop.learner.version) == (0, 1, before[2]), "no record, and not reported")
            self._raised.add(one.offset)
            return
        hold(self.loop.learner.version == one.offset + 1, "the version did not move on")
        if errors:
            self._raised.add(one.offset)
        example = type(entry).__name__ == "Example"
        hold(learned + errors == 1 if example and learning else learned == 0, f"{entry}: {learned=} {errors=}")

    def _reading_back(self) -> ExitStack:
        async def read_again(_c: Any, _t: str, start: int, stop: int) -> AsyncGenerator[list[Any], None]:
            yield self.log[start:stop]

        stack = ExitStack()
        stack.enter_context(patch.object(learn, "read_again", read_again))
        return stack

    # -- accounting

    def _snapshot(self) -> Counts:
        return Counts(*map(self.metrics.counts.__getitem__, COUNTED))

    def _account(self, tp: TopicPartition, offset: int) -> None:
        """One record is done: exactly one thing came of it, and it is counted."""
        now = self._snapshot()
        made = Counts(*map(sub, now, self._before))
        self._before = now
        self.letters[tp] += made.dead
        resolved = made.matched + made.early + made.duplicate + made.corrected + made.late + made.orphan
        if tp == self.events:
            one = made.predicted + made.repeated + made.dead
            hold(made.events == one == 1, f"event {offset} came to {made}")
            hold(resolved <= made.predicted and not made.expired, f"event {offset} resolved {made}")
            if resolved:
                self.outcomes.update({f"event:{name}": getattr(made, name) for name in ("matched", "late", "orphan")})
        elif tp == self.labels:
            hold(made.dead + resolved == 1 == sum(made), f"label {offset} came to {made}")
        else:
            hold(made.dead == sum(made) <= 1, f"lesson {offset} came to {made}")
            hold(made.dead >= (offset in self._raised), f"lesson {offset} was not learned, and not reported")

    async def checkpoint(self) -> None:
        """Cut both units; the cut holds all that was done since the last, and nothing else."""
        for unit in (self.unit, self.log_unit):
            marks = dict(unit.marks)
            cut = unit.cut()
            for tp, offset in cut.offsets.items():
                hold(offset == marks[tp], "an offset is not the mark")
            for tp, outputs in cut.outputs.items():
                self._written(tp, outputs)
            hold(unit.cut().empty, "a second cut is not empty")
        totals, written = self.metrics.counts, self.outcomes
        hold(written[self.pipeline.predictions_topic] == totals["predictions_total"], "predictions not as counted")
        hold(written[self.pipeline.dead_letters_topic] == totals["dead_letters_total"], "dead letters not as counted")

    def _written(self, tp: TopicPartition, outputs: Sequence[Output]) -> None:
        letters = self.pipeline.dead_letters_topic
        builder = Batches()
        batch = builder.create_batch()
        for output in outputs:
            size = len(output.key or b"") + len(output.value or b"") + sum(len(v or b"") for _, v in output.headers)
            known = len(getattr(self.loop.learner.model, "classes", ()) or ())
            most = MAX_REQUEST_BYTES - 100_000 if tp.topic == letters else LARGEST + CLASS * (known + 200)
            if not tp.topic.endswith(f"{monitors.NAME}-changelog"):  # one entry, of fixed size by its own tests
                hold(size <= most, f"{size} bytes for {tp.topic}, expected {most} at most")
            while (
                batch.append(timestamp=None, key=output.key, value=output.value, headers=list(output.headers)) is None
            ):
                batch = builder.create_batch()
        self.outcomes[tp.topic] += len(outputs)
        if tp.topic == self.pipeline.training_log_topic:
            for output in outputs:
                decode_log(output.value or b"")
                self.log.append(record(tp.topic, len(self.log), (output.key, output.value, 0, ())))
        elif tp.topic == self.pipeline.predictions_topic:
            for output in outputs:
                PREDICTION.decode(output.value or b"")
        elif tp.topic.endswith("-changelog"):
            self.changelog.setdefault(tp.topic, {}).update({o.key or b"": o.value for o in outputs})

    def close(self) -> None:
        """At the end: consumed = predicted + dead-lettered + dropped; what waits is in the state, and that recovers."""
        now, consumed, letters = self._snapshot(), self.consumed, self.letters
        hold(consumed[self.events] == now.predicted + letters[self.events] + now.repeated, f"events: {consumed}, {now}")
        answered = now.matched + now.early + now.duplicate + now.corrected + now.late
        answered -= self.outcomes["event:matched"] + self.outcomes["event:late"]
        hold(consumed[self.labels] == answered + letters[self.labels], f"labels: {consumed}, {now}")
        hold(sum(letters.values()) == now.dead, "dead letters of no record")
        states = Counter(data[1] for name, data in self.unit.state[pending.NAME].items() if name != WATERMARKS)
        waiting, parked = states[ord("w")], states[ord("p")]
        hold(now.predicted == now.matched + now.expired + waiting, f"waits: {now}, {waiting} wait")
        by_event = sum(self.outcomes[f"event:{name}"] for name in ("matched", "late", "orphan"))
        by_expiry = now.orphan - self.outcomes["event:orphan"]
        hold(now.early == by_event + by_expiry + parked, f"early labels: {now}, {parked} parked")
        for name, table in self._tables["events"].items():
            part = table.new_partition()
            for key, value in self.changelog.get(part.topic, {}).items():
                part.restore(key, value)
            dump = table._dump_value
            ours = {key: dump(value) for key, value in self.unit.state[name].items()}
            hold(ours == {key: dump(value) for key, value in part.items()}, f"{name} does not recover to what it was")
