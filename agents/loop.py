"""What the four agents of one worker share: the pipeline, its model, and how records are taken, refused and counted."""

import itertools
import logging
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from aiokafka import ConsumerRecord, TopicPartition
from faust.types import StreamT

from learning import intake
from learning.intake import Invalid
from learning.label import NEVER, Kind, PendingLabels, Resolution
from learning.learn import Learner
from learning.records import Example, Prediction, encode
from learning.scored import Heard, Rows
from learning.summary import Collector
from pipelines.definition import Pipeline, Stream
from streaming.app import StreamApp
from streaming.errors import TooManyDeadLetters
from streaming.unit import Chunk, Headers, Unit
from tables import monitors, pending

if TYPE_CHECKING:
    from agents.report import Reporter
    from agents.snapshots import Snapshots
    from agents.tracing import Tracer

log = logging.getLogger(__name__)

Step = Callable[["Loop", Unit, "ConsumerRecord[Any, Any]"], None]
Records = Sequence["ConsumerRecord[Any, Any]"]
StepOfMany = Callable[["Loop", Unit, Records], "Sequence[Invalid | None]"]
Turn = Callable[[Unit, Records, int], int]  # of the records from this place on as many as a turn takes; the next place

WORKER = f"{socket.gethostname()}:{os.getpid()}"
SHOWN = 10  # predictions of a turn that are shown to whoever looks
TURN = 0.005  # seconds of work before the loop, and with it the heartbeat and the checkpoint, gets a turn
MOST_AT_ONCE = 256  # records that a step of many gets
JUDGED = 1_000  # records over which the share of dead letters is taken
FEWEST = 100  # and how many of them there must be before it is judged
MAX_DEAD_LETTER = 3_000_000  # bytes of the original value that a dead letter keeps
MAX_EXTRA = 200_000  # bytes of the original key, and of the original headers
MAX_HEADER = 20_000  # a traceback of endless recursion is cut


class Pace:
    """How many records the next step of many gets: as half a turn takes, so that none holds the loop for long.

    Attributes:
        at_once: so many.
    """

    def __init__(self) -> None:
        self.at_once = 16

    def took(self, done: int, seconds: float) -> None:
        """A step of so many took so long; the next gets twice as many at most."""
        fit = int(done * TURN / 2 / max(seconds, 1e-6))
        self.at_once = max(1, min(fit, 2 * max(done, self.at_once // 2), MOST_AT_ONCE))


class Loop:
    """The shared parts of one worker.

    Attributes:
        app: the Faust app with the engine.
        pipeline: what is run.
        learner: the model, as new as the training log that this worker has followed.
        snapshots: what saves and restores the model, where it is saved.
        tracer: makes spans of some events' journeys; None where none are wanted.
        model_lag: records of the training log that this worker had not learned when it learned last.
        shown: the latest predictions, for whoever looks.
        on_predictions: called with them at the end of a turn.
        on_example: called with each example of the training log.
        missing_negatives: whether it has been said that the training log lacks some which this pipeline would learn.
        count_event: adds one to `events_total`; likewise `count_prediction`.
        paces: how many records each step of many gets, which is its own: a summary takes long.
        rows: makes rows of the log's examples, for whoever watches it.
        model_errors: tracebacks of examples the model raised on, by offset, for the owner of the log to report.
    """

    def __init__(self, app: StreamApp, pipeline: Pipeline) -> None:
        self.app = app
        self.engine = app.engine
        self.metrics = app.engine.metrics
        self.config = app.engine.config
        self.pipeline = pipeline
        self.learner = Learner(pipeline)
        self.model_errors: dict[int, str] = {}
        self.rows = Rows(pipeline)
        self._watched: Unit | None = None  # the log's, where this worker watches it or has watched it
        self.snapshots: Snapshots | None = None
        self.reporter: Reporter | None = None
        self.tracer: Tracer | None = None
        self.model_lag = 0
        self.missing_negatives = False
        self.shown: deque[Prediction] = deque(maxlen=SHOWN)
        self.on_predictions: Callable[[Iterable[Prediction]], None] | None = None
        self.on_example: Callable[[Example], None] | None = None
        metrics = self.metrics
        self.count_event = metrics.counter("events_total")
        self.count_prediction = metrics.counter("predictions_total")
        metrics.count("training_examples_total", 0.0)  # which is there from the beginning, as the others are
        self._count_label = {kind: metrics.counter("labels_total", outcome=kind) for kind in get_args(Kind)}
        self._observe_delay = metrics.histogram("label_delay_seconds")
        self.paces: defaultdict[Callable[..., Any], Pace] = defaultdict(Pace)
        self._judged: deque[bool] = deque(maxlen=JUDGED)

    def tell_model(self) -> None:
        """Say which model this worker has."""
        learner, metrics = self.learner, self.metrics
        metrics.gauge("model_version", learner.version)
        metrics.gauge("learning_frozen", float(not learner.learning))
        metrics.gauge("control_offset", learner.turns[-1].offset if learner.turns else -1)

    def pending(self, unit: Unit) -> PendingLabels:
        """The label join of a unit; built over its entries, and their queues, when first asked for."""
        join: PendingLabels | None = unit.kept.get("join")
        if join is None:
            p = self.pipeline
            entries = unit.state[pending.NAME]
            join = PendingLabels(
                entries,
                horizon_ms=p.horizon_ms,
                expired=p.expired,
                corrected=p.corrected,
                negatives=p.negatives,
                queues=entries.queues,
            )
            unit.kept["join"] = join
        return join

    def opened(self, unit: Unit) -> None:
        """Have what goes through a unit of events summed up at each of its cuts, and the log read once for all."""
        if monitors.NAME in unit.state:
            self._watched = unit
        if pending.NAME in unit.state:
            unit.before_cut = self.sum_up
            if self.tracer is not None:
                unit.after_save = self.tracer.saved

    @property
    def heard(self) -> dict[int, Heard] | None:
        """What the learner has read of the log, by offset, for its watch; None where that is another worker's."""
        unit = self._watched
        return heard_of(unit) if unit is not None and unit.open else None

    def collector(self, unit: Unit) -> Collector:
        """What gathers for the unit's next summary."""
        found: Collector | None = unit.kept.get("collector")
        if found is None:
            found = Collector(self.pipeline, unit.partition, WORKER, cycle_ms=self.pipeline.cycle_ms)
            unit.kept["collector"] = found
        return found

    def sum_up(self, unit: Unit) -> None:
        """Write what was gathered to the summaries."""
        if self.tracer is not None:
            self.tracer.cut(unit)
        made = self.collector(unit).take(wall_ms(), dict(unit.lag), self.model_lag)
        for summary in made:
            unit.emit(self.pipeline.summaries_topic, 0, str(unit.partition).encode(), encode(summary))

    def run_on(self, topic: str, name: str, step: Step) -> None:
        """Run an agent of this name that does this step for every record of a topic."""

        async def agent(chunks: StreamT[Chunk]) -> None:
            async for chunk in chunks:
                await self.each(chunk, step)

        self.app.agent(self.app.topic(topic, maxsize=8), name=name)(agent)

    def read(self, stream: Stream, record: "ConsumerRecord[Any, Any]") -> tuple[Any, str, str | None, int]:
        """What `intake.read` makes of a record under this worker's limits. Raises Invalid."""
        return intake.read(
            stream,
            record.key,
            record.value,
            record.timestamp,
            max_ahead_ms=self.config.max_ahead_ms,
            max_bytes=self.config.max_bytes,
        )

    async def each(self, chunk: Chunk, step: Step) -> None:
        """Do every record of a chunk that is still to be done, marking each; refused ones go to the dead letters.

        Whatever else is raised is a mistake of this program, so it ends the worker, with the unit as it was saved last.
        """

        def turn(unit: Unit, records: Records, done: int) -> int:
            started = time.perf_counter()
            for record in itertools.islice(records, done, None):
                invalid = None
                try:
                    step(self, unit, record)
                except Invalid as refused:
                    invalid = refused
                self._settle(unit, chunk.tp, record, invalid)
                done += 1
                if time.perf_counter() - started > TURN:
                    break
            return done

        await self._turns(chunk, turn)

    async def each_of_many(self, chunk: Chunk, step: StepOfMany) -> None:
        """Like `each`, for a step that does many records at once and says of each whether it is refused, and why."""
        pace = self.paces[step]

        def turn(unit: Unit, records: Records, done: int) -> int:
            started = now = time.perf_counter()
            while done < len(records) and now - started <= TURN / 2:
                part, begun = records[done : done + pace.at_once], now
                self._settle_all(unit, chunk.tp, part, step(self, unit, part))
                done += len(part)
                now = time.perf_counter()
                pace.took(len(part), now - begun)
            return done

        await self._turns(chunk, turn)

    async def _turns(self, chunk: Chunk, turn: Turn) -> None:
        """Do what is to be done of a chunk, turn by turn; others have theirs in between."""
        unit = self.engine.unit_of(chunk.tp)
        try:
            records, done = self.engine.take(unit, chunk), 0
            while unit is not None and unit.open:
                done = turn(unit, records, done)
                self._end_turn(unit)
                if done == len(records):
                    return
                await self.engine.breathe()
        except Exception as error:  # noqa: BLE001  # Faust would restart the agent past the record
            await self.app.fail(error)

    def _settle(
        self, unit: Unit, tp: TopicPartition, record: "ConsumerRecord[Any, Any]", invalid: Invalid | None
    ) -> None:
        """A record was done, or is refused: count it, and mark it."""
        if invalid is not None:
            self.refuse(unit, record, invalid)
        elif tp.topic != self.pipeline.summaries_topic:  # which say nothing about the user's records
            self._judged.append(False)
        unit.mark(tp, record.offset)

    def _settle_all(
        self, unit: Unit, tp: TopicPartition, records: Records, refused: "Sequence[Invalid | None]"
    ) -> None:
        """As `_settle` one by one; at once where none is refused, as of nearly all none is."""
        if any(refused):
            for record, invalid in zip(records, refused, strict=True):
                self._settle(unit, tp, record, invalid)
            return
        if tp.topic != self.pipeline.summaries_topic:
            self._judged.extend([False] * len(records))
        unit.mark(tp, records[-1].offset)

    def _end_turn(self, unit: Unit) -> None:
        if pending.NAME in unit.state:
            join = self.pending(unit)
            unit.progress = (join.event_ms, join.label_ms)
        if self.config.predictions == "immediate":
            self.engine.publish(unit)
        if self.shown and self.on_predictions is not None:
            self.on_predictions(self.shown)
        self.shown.clear()

    def refuse(self, unit: Unit, record: "ConsumerRecord[Any, Any]", invalid: Invalid) -> None:
        """Send a record to the dead letters as it came. Raises TooManyDeadLetters."""
        self.metrics.count("dead_letters_total", reason=invalid.reason)
        if pending.NAME in unit.state:
            self.collector(unit).dead_letter(invalid.reason)
        key, value = record.key, record.value
        headers: list[tuple[str, bytes]] = [
            ("reason", invalid.reason.encode()),
            ("topic", record.topic.encode()),
            ("partition", str(record.partition).encode()),
            ("offset", str(record.offset).encode()),
            ("traceback" if "Traceback" in invalid.message else "message", _bytes(invalid.message)),
        ]
        if value is not None and len(value) > MAX_DEAD_LETTER:
            headers.append(("truncated-from-bytes", str(len(value)).encode()))
            value = value[:MAX_DEAD_LETTER]
        if key is not None and len(key) > MAX_EXTRA:
            headers.append(("key-truncated-from-bytes", str(len(key)).encode()))
            key = key[:MAX_EXTRA]
        original: Headers = record.headers or ()
        if sum(len(name) + len(data or b"") for name, data in original) <= MAX_EXTRA:
            headers += [(f"original-{name}", data) for name, data in original]
        else:
            headers.append(("original-headers-dropped", str(len(original)).encode()))
        unit.emit(self.pipeline.dead_letters_topic, unit.partition, key, value, headers)
        if record.topic != self.pipeline.summaries_topic:
            self._judge(record, invalid)

    def _judge(self, record: "ConsumerRecord[Any, Any]", invalid: Invalid) -> None:
        self._judged.append(True)
        share = sum(self._judged) / len(self._judged)
        if len(self._judged) >= FEWEST and share > self.config.dead_letter_limit:
            message = (
                f"{share:.0%} of the last {len(self._judged)} records were unusable, more than"
                f" HEADWATER_DEAD_LETTER_LIMIT={self.config.dead_letter_limit} allows, so the definition of"
                f" {self.pipeline.name} or what its topics hold must be wrong. The last one, {record.topic}"
                f"-{record.partition} at offset {record.offset}, is {invalid.reason}: {_last_line(invalid.message)}"
            )
            raise TooManyDeadLetters(message)

    def resolved(self, unit: Unit, resolution: Resolution) -> None:
        """Count what became of a label or a wait, and write what is to be learned to the training log."""
        self._count_label[resolution.kind]()
        self.collector(unit).label(resolution.kind)
        record = resolution.record
        if record is None:
            return
        if isinstance(record, Example) and record.source == "label":
            self._observe_delay((record.label_time_ms - record.time_ms) / 1000)
        unit.emit(self.pipeline.training_log_topic, 0, record.id.encode(), encode(record))

    async def look_after(self, unit: Unit) -> None:
        """What is to be done now and then; the engine calls it when it has learned where the unit's topics end."""
        if pending.NAME in unit.state:
            await self.expire(unit)
            return
        if self.snapshots is not None:  # the unit of the training log, so this worker owns it
            self.snapshots.consider()
        if self.reporter is not None:
            self.reporter.consider(unit)

    async def expire(self, unit: Unit) -> None:
        """End the waits of a unit that are over."""
        join, limit = self.pending(unit), 1_000
        if unit.progress is None:  # nothing has come since it was recovered
            unit.progress = (join.event_ms, join.label_ms)
        at_labels = self.engine.read_to(unit, self.pipeline.labels.topic)
        at_events = self.engine.read_to(unit, self.pipeline.events.topic)
        labels_to = NEVER if at_labels is None else max(at_labels)
        events_to = NEVER if at_events is None else max(at_events)
        while unit.open:
            ended = join.expire(labels_to=labels_to, events_to=events_to, limit=limit)
            for resolution in ended:
                self.resolved(unit, resolution)
            if len(ended) < limit:
                return
            await self.engine.breathe()


def heard_of(unit: Unit) -> dict[int, Heard]:
    """What waits for the watch of the log's unit."""
    heard: dict[int, Heard] = unit.kept.setdefault("heard", {})
    return heard


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _last_line(text: str) -> str:
    """Of a traceback what was raised, which people can read; the dead letters have all of it."""
    return text.strip().rpartition("\n")[2]


def _bytes(text: str) -> bytes:
    data = text.encode(errors="replace")
    return data if len(data) <= MAX_HEADER else data[: MAX_HEADER // 2] + b"\n...\n" + data[-MAX_HEADER // 2 :]
