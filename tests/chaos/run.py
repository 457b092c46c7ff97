"""Topics, workers and what they wrote, for one run on a real Kafka."""

import asyncio
import itertools
import math
import os
import signal
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.worker import prepared
from learning import snapshots
from learning.records import DriftEvent, Prediction, decode_log
from pipelines.card_fraud import Purchase
from pipelines.definition import Pipeline
from pipelines.flights import Departure
from streaming.config import EngineConfig
from streaming.snapshots import SnapshotStore
from tables.monitors import WATCH
from tests.chaos.checker import Seen, Truth, check, truth
from tests.chaos.history import History
from tests.chaos.nursery import Forked, Nursery
from tests.integration.flights_run import named
from tests.kafka import committed

PARTITIONS = 4
SLOTS = 4
ROOT = Path(__file__).parents[2]
TICK = 0.05  # seconds that a load may be ahead

Worker = subprocess.Popen[bytes] | Forked


class _Named(msgspec.Struct):
    """What tells records of one topic apart; a control record has no id."""

    id: str | None = None
    type: str | None = None


_name = msgspec.json.Decoder(_Named).decode


class Run:
    """One run.

    Args:
        kafka: address of the broker, for this process and, where they are not given another, for the workers.
        logs: a folder for what the workers say.
        make: the pipeline under a name of its own, so that runs on one broker keep apart.
        history: where what is done is noted.
        broker: the broker itself, where the run has one of its own that may be harmed.
        nursery: starts the workers, where they are to start quickly; else each is a new interpreter.
        seconds: after which no more harm is done.

    Attributes:
        slots: how many saved models the workers keep, or more.
    """

    slots = SLOTS

    def __init__(
        self,
        kafka: str,
        logs: Path,
        make: Callable[[str], Pipeline] = named,
        *,
        history: History | None = None,
        broker: Any = None,
        nursery: Nursery | None = None,
        seconds: float = math.inf,
    ) -> None:
        self.name = f"r{uuid.uuid4().hex[:8]}"
        self.pipeline = make(self.name)
        self.config = EngineConfig(
            bootstrap=kafka,
            app_id=f"headwater-{self.name}",
            partitions=PARTITIONS,
            replication_factor=getattr(broker, "copies", 1),
        )
        self.history = history or History(0)
        self.broker = broker
        self.settings: dict[str, str] = {}
        """Of every worker that is started from now on, as HEADWATER_* variables."""
        self.workers: list[Worker] = []
        self._told: list[Worker] = []  # to end
        self._logs = logs
        self._places: dict[int, Worker] = {}
        self._nursery = nursery
        self._ends = time.monotonic() + seconds

    async def prepare(self) -> None:
        """Create the topics."""
        assert await prepared(self.pipeline, self.config) == PARTITIONS

    def rounds(self, size: int) -> Iterator[int]:
        """Numbers from 0 on, one for each time that harm is done, while there is time."""
        return itertools.takewhile(lambda _: time.monotonic() < self._ends, range(size))

    # -- workers

    def start(
        self,
        pipeline: str = "flights_run:pipeline",
        *,
        bootstrap: str | None = None,
        fault: str = "",
        **settings: str,
    ) -> Worker:
        """Start a worker.

        Args:
            pipeline: module and name under tests.integration.
            bootstrap: the broker's address for this worker, such as that of a proxy.
            fault: what happens to it where, for `tests.chaos.worker`: `commit:after@3`, `send:before@2:STOP`.
            settings: HEADWATER_* variables.
        """
        environment = {
            "HEADWATER_BROKER": bootstrap or self.config.bootstrap,
            "HEADWATER_PIPELINE": f"tests.integration.{pipeline}",
            "HEADWATER_TEST_RUN": self.name,
            "HEADWATER_SESSION_TIMEOUT": "6",
            "HEADWATER_WEB_PORT": "0",
            "HEADWATER_TEST_FAULT": fault,
            **({"HEADWATER_ROLE": "all"} if fault or self._nursery else {}),  # harm is done to one process
            **self.settings,
            **settings,
        }
        place = self._free_place()
        if environment.get("HEADWATER_STORE") == "disk":
            environment.setdefault("HEADWATER_DATA_DIR", str(self._logs / f"place-{place}"))
        log = self.log(len(self.workers))
        worker = (
            self._new_interpreter(environment, log) if self._nursery is None else self._nursery.start(environment, log)
        )
        self.history.note("start", worker=len(self.workers), **({"fault": fault} if fault else {}))
        self.workers.append(worker)
        self._places[place] = worker
        return worker

    def _free_place(self) -> int:
        """The first place whose worker has ended; the next one finds its folder there, with stores as it left them."""
        return next(n for n in itertools.count() if n not in self._places or self._places[n].poll() is not None)

    @staticmethod
    def _new_interpreter(environment: dict[str, str], log: Path) -> Worker:
        arguments = ["-m", "tests.chaos.worker"] if environment["HEADWATER_TEST_FAULT"] else ["-m", "app.cli", "worker"]
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out
            )

    def send(self, worker: Worker, what: signal.Signals) -> None:
        """Send a signal. A worker that ends of SIGKILL or SIGTERM has not fallen."""
        if what in {signal.SIGKILL, signal.SIGTERM}:
            self._told.append(worker)
        self.history.note(what.name, worker=self.workers.index(worker))
        worker.send_signal(what)

    async def ended(self, worker: Worker, patience: float = 60.0) -> int:
        """Its exit code. Raises TimeoutExpired where it goes on."""
        code = await asyncio.to_thread(worker.wait, patience)
        self.history.note("ended", worker=self.workers.index(worker), code=code)
        return code

    def fallen(self) -> list[Worker]:
        """Workers that ended though nobody told them to."""
        return [w for w in self.workers if w.poll() is not None and w not in self._told]

    def alive(self) -> list[Worker]:
        """Workers that have not ended."""
        return [worker for worker in self.workers if worker.poll() is None]

    def log(self, number: int) -> Path:
        """What a worker has said."""
        return self._logs / f"worker-{number}.log"

    def said(self, worker: Worker) -> str:
        """What a worker has said."""
        return self.log(self.workers.index(worker)).read_text(errors="replace")

    def last_words(self, workers: int = 4) -> str:
        """The end of what each of the last workers said."""
        first = max(0, len(self.workers) - workers)
        return "\n".join(self.log(n).read_text(errors="replace")[-3000:] for n in range(first, len(self.workers)))

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    # -- input

    async def produce(self, items: list[Any], *, seconds: float = 0.0) -> None:
        """Write the items in order, spread over so many seconds."""
        await Load(self, items, rate=len(items) / seconds if seconds else None).done()

    def load(self, items: Iterable[Any], rate: float, timestamp: Callable[[Any, int], int] | None = None) -> "Load":
        """Write so many items a second from now on, until told to stop or there are no more.

        Args:
            items: events and labels.
            rate: items a second.
            timestamp: the record's timestamp, from an item and its own time, which it is otherwise.
        """
        return Load(self, items, rate, timestamp)

    # -- output

    async def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic, in offset order within each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.config.bootstrap, isolation_level="read_committed")
        await consumer.start()
        try:
            return await committed(consumer, topic, sorted(await self._partitions(consumer, topic)))
        finally:
            await consumer.stop()

    async def _partitions(self, consumer: Any, topic: str) -> set[int]:
        await consumer._client.force_metadata_update()
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            await consumer.topics()
            numbers = consumer.partitions_for_topic(topic)
        return numbers or {0}

    async def assert_all_true(self, items: Iterable[Any]) -> Seen:
        """Everything that is promised under exactly_once, of a run that was fed with these items; what was seen."""
        expected = truth(self.pipeline, items)
        seen = await self.settled(expected)
        verdict = check(self.pipeline, expected, seen)
        assert verdict.wrong() == {}, verdict.cases
        return seen

    async def until(self, predictions: int, examples: int, *, patience: float = 90.0) -> None:
        """Wait until there is so much, each counted once, or nothing more comes; others say what is missing then."""
        made, learned = self.pipeline.predictions_topic, self.pipeline.training_log_topic
        found: dict[str, set[Any]] = {made: set(), learned: set()}
        consumer = AIOKafkaConsumer(bootstrap_servers=self.config.bootstrap, isolation_level="read_committed")
        await consumer.start()
        try:
            tps = [TopicPartition(topic, n) for topic in found for n in await self._partitions(consumer, topic)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            end = time.monotonic() + patience
            while time.monotonic() < end:
                batches = await consumer.getmany(timeout_ms=500)
                for tp, records in batches.items():
                    end = time.monotonic() + patience
                    for record in records:
                        name = _name(record.value)
                        found[tp.topic].add((name.type, record.offset if name.id is None else name.id))
                if len(found[made]) >= predictions and len(found[learned]) >= examples:
                    return
                if not batches and not self.alive():  # what ended workers have written is to be read first
                    ends = await consumer.end_offsets(tps)
                    assert [tp for tp in tps if await consumer.position(tp) < ends[tp]], self.last_words()
        finally:
            await consumer.stop()

    async def settled(self, truth: Truth, *, patience: float = 90.0) -> Seen:
        """Everything that there is to see, once the workers have done all they have to, or nothing more comes."""
        await self.until(len(truth.vectors), len(truth.labels), patience=patience)
        return await self.watched(patience=patience)

    async def watched(self, *, patience: float = 90.0) -> Seen:
        """Everything that there is to see, once who watches has come to the end of the log, or after so many seconds.

        Who watches gives way to who predicts, so where cores are short it may come long after the log was written.
        """
        end = time.monotonic() + patience
        while True:
            seen = await self.seen()
            if seen.complete(self.pipeline) or time.monotonic() > end:
                return seen
            await asyncio.sleep(1.0)

    async def saved(self, since: int, *, signed: bool = False, patience: float = 90.0) -> None:
        """Wait until a model of a version after this one is saved, signed or not; fail after so many seconds."""
        store = SnapshotStore(self.config, self.pipeline.snapshots_topic, self.slots)
        end = time.monotonic() + patience
        while True:
            found = [snapshots.read_manifest(stored.manifest) for stored in await store.read()]
            if any(each.version > since and (each.hmac or not signed) for each in found):
                return
            assert time.monotonic() < end, f"got {found}, expected a version after {since}: {self.last_words()}"
            await asyncio.sleep(0.5)

    async def there(self, topic: str, count: int = 1, *, words: bytes = b"", patience: float = 60.0) -> list[Any]:
        """A topic's records, once there are so many with these words in them; fail after so many seconds."""
        end = time.monotonic() + patience
        while True:
            records = await self.read(topic)
            found = sum(words in (record.value or b"") for record in records)
            if found >= count:
                return records
            assert time.monotonic() < end, f"{topic} has {found} with {words!r}, expected {count}: {self.last_words()}"
            await asyncio.sleep(0.5)

    async def seen(self) -> Seen:
        """Everything that the workers have written, as readers of committed records see it."""
        p, app = self.pipeline, self.config.app_id
        made, log = await self.read(p.predictions_topic), await self.read(p.training_log_topic)
        profiles, monitors = await self.read(f"{app}-profiles-changelog"), await self.read(f"{app}-monitors-changelog")
        return Seen(
            predictions=[(r.partition, msgspec.json.decode(r.value, type=Prediction)) for r in made],
            log=[(r.offset, decode_log(r.value)) for r in log],
            drifts=[msgspec.json.decode(r.value, type=DriftEvent) for r in await self.read(p.drift_topic)],
            monitors=next((zlib.decompress(r.value) for r in reversed(monitors) if r.key == WATCH.encode()), None),
            profiles={record.key.decode(): record.value for record in profiles},
            snapshots=await SnapshotStore(self.config, p.snapshots_topic, self.slots).read(),
            saved="HEADWATER_SNAPSHOT_INTERVAL" in self.settings,
            dead_letters=[(dict(r.headers), r.value) for r in await self.read(p.dead_letters_topic)],
        )


class Load:
    """Items that are being written, in order, each once, by one producer.

    Attributes:
        items: what has been written.
    """

    def __init__(
        self, run: Run, items: Iterable[Any], rate: float | None, timestamp: Callable[[Any, int], int] | None = None
    ) -> None:
        """Begin. `timestamp` gives the record's from the item and its own time, which it is otherwise."""
        self.items: list[Any] = []
        self._run = run
        self._timestamp = timestamp or (lambda _, time_ms: time_ms)
        self._enough = asyncio.Event()
        self._task = asyncio.create_task(self._write(items, rate))

    async def stop(self) -> list[Any]:
        """Stop, and what has been written."""
        self._enough.set()
        return await self.done()

    async def done(self) -> list[Any]:
        """Wait for the end of the items; what has been written. Raises what a delivery came to."""
        await self._task
        return self.items

    async def _write(self, items: Iterable[Any], rate: float | None) -> None:
        # Idempotent, and with patience for a broker that is away: the input is to be what it is said to be.
        producer = AIOKafkaProducer(
            bootstrap_servers=self._run.config.bootstrap,
            enable_idempotence=True,
            linger_ms=5,
            request_timeout_ms=120_000,
        )
        await producer.start()
        try:
            await self._write_with(producer, items, rate)
        finally:
            await producer.stop()

    async def _write_with(self, producer: AIOKafkaProducer, items: Iterable[Any], rate: float | None) -> None:
        events, labels = self._run.pipeline.events, self._run.pipeline.labels
        sent: list[asyncio.Future[Any]] = []
        began = time.monotonic()
        for item in items:
            stream = events if isinstance(item, Departure | Purchase) else labels
            time_ms = stream.time_of(item)
            key, value = stream.key_of(item).encode(), stream.encode(item)
            sent.append(await producer.send(stream.topic, value, key, timestamp_ms=self._timestamp(item, time_ms)))
            self.items.append(item)
            ahead = 0.0 if rate is None else len(self.items) / rate - (time.monotonic() - began)
            if ahead > TICK:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), ahead)
            if self._enough.is_set():
                break
            if len(sent) > 5_000:
                sent = await _undelivered(sent)
        await asyncio.gather(*sent)


async def _undelivered(sent: list["asyncio.Future[Any]"]) -> list["asyncio.Future[Any]"]:
    """Those that are on their way. Raises what others came to."""
    done = [future for future in sent if future.done()]
    await asyncio.gather(*done)
    return [future for future in sent if not future.done()]
