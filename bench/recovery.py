"""What a worker has to do before it predicts: read changelogs, replay the training log, take over from another.

    python -m bench.recovery            # all of it, into docs/performance.md; ten minutes
    python -m bench.recovery --quick    # small, to the screen

Profiles and waiting predictions are real ones of `bench.payments`, given to as many keys as are wanted. Each
measurement has a Kafka of its own.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from app.worker import prepared
from bench import page
from bench.load import Plan, Seen, Sender, put, watching
from bench.payments import START_MS, customer, forests, over_days, payments, verdict
from bench.worker import PATIENCE, Worker
from features import Profile
from learning import snapshots
from learning.label import PendingLabels
from learning.learn import Learner
from learning.records import Example, Prediction, encode
from pipelines.definition import Pipeline
from streaming import clients, recovery
from streaming.brokers import LocalKafka
from streaming.checkpoint import send_all
from streaming.config import EngineConfig
from streaming.reading import read_between
from streaming.state import StatePartition
from streaming.unit import Output
from tables import pending, profiles

APP = "bench-recovery"
PARTITIONS = 4
KEYS = (10_000, 100_000, 1_000_000)
TARGET = 250_000  # changelog records a second
EXAMPLES = 100_000
TREES = 10_000  # examples for the forest, which learns some fifty times as slowly
SESSIONS = (10.0, 2.0)  # seconds; the first is what a worker has unless told otherwise
RATE = 200.0  # events a second while a worker takes over
RUN = 10_000  # records that are written at once
PARTS = ("changelogs", "log", "takeover")
PREDICTED = 50  # events that wait for a worker


@contextmanager
def kafka() -> Iterator[EngineConfig]:
    """A broker of its own with the topics of the stream."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        config = EngineConfig(bootstrap=broker.bootstrap, app_id=APP, partitions=PARTITIONS)
        asyncio.run(prepared(payments, config))
        yield config


def started(config: EngineConfig, pipeline: str = "payments", **settings: object) -> Worker:
    """A worker of that stream."""
    return Worker(config.bootstrap, f"bench.payments:{pipeline}", app_id=APP, partitions=PARTITIONS, **settings)


# -- changelogs


def some_profiles() -> list[bytes]:
    """Real profiles as a changelog holds them."""
    features = payments.feature_set
    made: dict[str, Profile] = {}
    for event in over_days(10_000, 500, 10.0):
        features.compute(event, event.customer, event.at, made)
    return [features.dump(profile) for profile in made.values()]


def some_waiting() -> list[bytes]:
    """Real predictions that wait for their labels, as a changelog holds them."""
    features, profiles_of = payments.feature_set, dict[str, Profile]()
    made: dict[str, bytes] = {}
    join = PendingLabels(made, horizon_ms=payments.horizon_ms, expired="drop", corrected="log")
    for event in over_days(500, 500, 10.0):
        vector, _ = features.compute(event, event.customer, event.at, profiles_of)
        join.open(Prediction(event.payment, event.customer, event.at, 0.5, 0, vector, features.schema))
    return [data for name, data in made.items() if not name.startswith("\x00")]


class Kind(NamedTuple):
    """One changelog: what its records are, the table, some of its values, and what makes state of one."""

    about: str
    table: str
    values: list[bytes]
    load: Callable[[str, bytes], Any]

    @property
    def topic(self) -> str:
        """Its name."""
        return f"{APP}-{self.table}-changelog"

    @property
    def size(self) -> int:
        """Bytes of a record's value."""
        return len(self.values[0])


def kinds() -> tuple[Kind, ...]:
    """Both that grow with the stream."""
    return (
        Kind("profile", profiles.NAME, some_profiles(), payments.feature_set.load),
        Kind("waiting prediction", pending.NAME, some_waiting(), lambda _, data: data),
    )


async def fill(config: EngineConfig, kind: Kind, keys: int) -> None:
    """Write a record for each key to the changelog, in the partition of its key."""
    partition_of, every = DefaultPartitioner(), list(range(PARTITIONS))
    producer = clients.producer(config)
    await producer.start()
    try:
        for start in range(0, keys, RUN):
            runs: dict[TopicPartition, list[Output]] = {TopicPartition(kind.topic, number): [] for number in every}
            for number in range(start, min(start + RUN, keys)):
                name = customer(number).encode()
                tp = TopicPartition(kind.topic, partition_of(name, every, every))
                runs[tp].append(Output(name, kind.values[number % len(kind.values)]))
            await send_all(producer, runs)
    finally:
        await producer.stop()


class Read(NamedTuple):
    """One way to read a changelog: records a second, of CPU time and of the clock."""

    way: str
    by_cpu: float
    by_clock: float


def read(config: EngineConfig, kind: Kind, keys: int) -> list[Read]:
    """A changelog read as a worker does, and in parts. Raises RuntimeError where not every key was there."""
    tps = [TopicPartition(kind.topic, number) for number in range(PARTITIONS)]
    found = []

    ends = asyncio.run(recovery.end_offsets(config, tps))

    async def fetched() -> int:
        spans = {tp: (0, ends[tp]) for tp in tps}
        return sum([len(records) async for batches in read_between(config, spans) for records in batches.values()])

    async def restored() -> int:
        into: Any = {tp: StatePartition(kind.topic, load=kind.load, dump=bytes) for tp in tps}
        await recovery.read_changelogs(config, into)
        return sum(map(len, into.values()))

    ways: dict[str, Callable[[], Coroutine[Any, Any, int]]] = {
        "fetched and parsed by aiokafka": fetched,
        "and made state: `read_changelogs`": restored,
    }
    for way, work in ways.items():
        cpu, clock = time.process_time(), time.monotonic()
        count = asyncio.run(work())
        cpu, clock = time.process_time() - cpu, time.monotonic() - clock
        if count != keys:
            message = f"{way}: got {count:,} keys, expected {keys:,}"
            raise RuntimeError(message)
        found.append(Read(way, keys / cpu, keys / clock))
    return found


class Start(NamedTuple):
    """A worker's start, in seconds.

    Attributes:
        what: what it came after.
        opened: what it says that opening its partitions took.
        predicted: from when its process was started until its first prediction was readable.
    """

    what: str
    opened: float
    predicted: float


def starts(config: EngineConfig) -> Iterator[Start]:
    """A worker's first start, and those after SIGTERM and SIGKILL."""
    worker, first, ended = None, 0, ""
    try:
        for what in ("SIGTERM", "SIGKILL", ""):
            before = f"after {ended}" if ended else "the first"
            numbers = range(first, first := first + PREDICTED)
            worker, at = asyncio.run(_first_prediction(config, numbers))
            yield Start(before, worker.samples()["recovery_seconds"], at - worker.started)
            (worker.kill if what == "SIGKILL" else worker.end)()
            ended = what
    finally:
        if worker is not None:
            worker.end()


async def _first_prediction(config: EngineConfig, numbers: range) -> tuple[Worker, float]:
    """A new worker, and when the first of these events, which are there before it, has its prediction."""
    await put(config.bootstrap, numbers)
    async with watching(config) as watcher:
        worker = started(config)
        try:
            seen = await watcher.until(lambda one: one.number in numbers, patience=PATIENCE)
        except BaseException:
            worker.end()
            raise
    return worker, seen[-1].at


# -- the training log


async def teach(config: EngineConfig, pipeline: Pipeline, examples: int) -> None:
    """Write so many examples to the training log."""
    producer = clients.producer(config)
    await producer.start()
    tp = TopicPartition(pipeline.training_log_topic, 0)
    try:
        made = [Output(one.id.encode(), encode(one)) for one in _examples(pipeline, examples)]
        for start in range(0, examples, RUN):
            await send_all(producer, {tp: made[start : start + RUN]})
    finally:
        await producer.stop()


def _examples(pipeline: Pipeline, examples: int) -> Iterator[Example]:
    features = pipeline.feature_set
    made: dict[str, Profile] = {}
    for event in over_days(examples, 500, 10.0):
        vector, _ = features.compute(event, event.customer, event.at, made)
        outcome = verdict(event, event.at).outcome
        yield Example(
            event.payment, event.customer, event.at, event.at, 0.5, 0, vector, features.schema, outcome, "label"
        )


class Replay(NamedTuple):
    """What the training log costs a start.

    Attributes:
        model: which.
        examples: how many there are.
        rate: examples learned in a second, by the clock.
        without: seconds from the process's start until it was ready, without a snapshot.
        with_one: the same with one of the end of the log.
    """

    model: str
    examples: int
    rate: float
    without: float
    with_one: float


def replay(name: str, pipeline: Pipeline, examples: int) -> Replay:
    """A start without a snapshot, which leaves one, and a start with it."""
    with kafka() as config:
        asyncio.run(teach(config, pipeline, examples))
        with started(config, name, snapshot_examples=examples) as worker:
            rate = _rate(worker, examples)
            worker.ready()
            without = time.monotonic() - worker.started
            worker.wait("there is a snapshot", lambda found: found.get("snapshots_total", 0.0) >= 1)
        with started(config, name, snapshot_examples=examples) as worker:
            worker.ready()
            with_one = time.monotonic() - worker.started
            found = worker.samples()
            version, learned = found.get("snapshot_version", 0.0), found.get("training_examples_total", 0.0)
            if version < examples or learned:
                message = (
                    f"expected a start from the snapshot of version {examples:,}, got one of {version:,.0f} and"
                    f" {learned:,.0f} examples after it"
                )
                raise RuntimeError(message)
    return Replay(name, examples, rate, without, with_one)


def _rate(worker: Worker, examples: int) -> float:
    """Examples that it learns in a second, from the first that it is seen to have learned to the last."""
    name = "training_examples_total"
    worker.wait("it learns", lambda found: found.get(name, 0.0) > 0)
    seen, at = worker.samples()[name], time.monotonic()
    if seen >= examples:
        message = f"all {examples:,} examples were learned before it was seen; give it more of them (--examples)"
        raise RuntimeError(message)
    worker.wait("it has learned all", lambda found: found[name] >= examples)
    return (examples - seen) / (time.monotonic() - at)


class Saved(NamedTuple):
    """A snapshot, in process: its size in bytes, and seconds to take and to load it."""

    model: str
    examples: int
    size: int
    dump: float
    load: float


def saved(name: str, pipeline: Pipeline, examples: int) -> Saved:
    """The snapshot of a model that has learned so much."""
    learner = Learner(pipeline)
    for offset, example in enumerate(_examples(pipeline, examples)):
        learner.apply(offset, example)
    started_at = time.perf_counter()
    manifest, chunks = snapshots.dump(learner, pipeline, created_ms=START_MS)
    dumped_at = time.perf_counter()
    loaded = snapshots.load(manifest, chunks, pipeline)
    done_at = time.perf_counter()
    if loaded.examples != examples:
        message = f"the snapshot of {name} has {loaded.examples:,} examples, expected {examples:,}"
        raise RuntimeError(message)
    return Saved(name, examples, sum(map(len, chunks)), dumped_at - started_at, done_at - dumped_at)


# -- takeover


class Takeover(NamedTuple):
    """One of two workers ends: seconds until every partition has predicted an event that was due after that."""

    how: str
    session: float
    first: float
    last: float


def takeover(how: str, session: float) -> Takeover:
    """Two workers under a steady load, one of which ends."""
    with (
        kafka() as config,
        started(config, session_timeout=session) as ends,
        started(config, session_timeout=session) as stays,
    ):
        return asyncio.run(_takeover(config, how, session, ends, stays))


async def _takeover(config: EngineConfig, how: str, session: float, ends: Worker, stays: Worker) -> Takeover:
    ends.ready()
    stays.ready()
    async with watching(config) as watcher:
        with Sender(Plan(config.bootstrap, RATE, PATIENCE)) as sender:
            plan = await sender.begin()
            for worker in (ends, stays):
                await asyncio.to_thread(
                    worker.wait, "it predicts", lambda found: found.get("predictions_total", 0.0) > 0
                )
            since = time.monotonic()
            await asyncio.to_thread(ends.kill if how == "SIGKILL" else ends.process.terminate)
            at: dict[int, float] = {}

            def everywhere(one: Seen) -> bool:
                if plan.due(one.number) > since:
                    at.setdefault(one.partition, one.at)
                return len(at) == watcher.partitions

            await watcher.until(everywhere, patience=PATIENCE)
    return Takeover(how, session, min(at.values()) - since, max(at.values()) - since)


# -- the page


def changelog_section(keys: Sequence[int]) -> list[str]:
    """Tables of the changelogs and of the starts with them."""
    both = kinds()
    reads: list[list[str]] = []
    begun: list[list[str]] = []
    for count in keys:
        with kafka() as config:
            for kind in both:
                asyncio.run(fill(config, kind, count))
                reads += [
                    [f"{kind.about}, {kind.size:,} bytes", each.way, f"{count:,}", *_rates(each)]
                    for each in read(config, kind, count)
                ]
            begun += [
                [each.what, f"{count:,}", f"{each.opened:.1f}", f"{each.predicted:.1f}"] for each in starts(config)
            ]
    sizes = " or ".join(f"{TARGET * kind.size / 1e6:,.0f}" for kind in both)
    return [
        page.rows(["changelog of", "records a second", "keys", "of CPU time", "by the clock"], reads, words=2),
        f"In {PARTITIONS} partitions. The target is {TARGET:,}, which is {sizes} MB a second.",
        page.rows(["start of a worker", "keys", "opening, s", "to its first prediction, s"], begun),
        "There are as many waiting predictions as profiles. After SIGKILL the group waits for the dead worker until its"
        f" session ends ({SESSIONS[0]:.0f} s).",
    ]


def _rates(one: Read) -> tuple[str, str]:
    return f"{one.by_cpu:,.0f}", f"{one.by_clock:,.0f}"


def log_section(examples: int, trees: int) -> list[str]:
    """Tables of the training log and of snapshots."""
    models = (("payments", payments, examples), ("forests", forests, trees))
    titles = {"payments": "logistic regression", "forests": "adaptive random forest of 10"}
    replays = [replay(*model) for model in models]
    kept = [saved(*model) for model in models]
    return [
        page.rows(
            ["start with a training log", "examples", "learned a second", "ready without a snapshot, s", "with one, s"],
            [
                [
                    titles[each.model],
                    f"{each.examples:,}",
                    f"{each.rate:,.0f}",
                    f"{each.without:.1f}",
                    f"{each.with_one:.1f}",
                ]
                for each in replays
            ],
        ),
        page.rows(
            ["snapshot", "examples", "kB", "taken, ms", "loaded, ms"],
            [
                [
                    titles[each.model],
                    f"{each.examples:,}",
                    f"{each.size / 1e3:,.0f}",
                    f"{each.dump * 1e3:.1f}",
                    f"{each.load * 1e3:.1f}",
                ]
                for each in kept
            ],
        ),
    ]


def takeover_section(cases: Sequence[tuple[str, float]]) -> list[str]:
    """The table of takeovers."""
    found = [takeover(*case) for case in cases]
    return [
        page.rows(
            ["one of two workers ends by", "session timeout, s", "first partition predicts again, s", "all do, s"],
            [[each.how, f"{each.session:g}", f"{each.first:.1f}", f"{each.last:.1f}"] for each in found],
        )
    ]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=KEYS, help="numbers of keys")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of the training log")
    parser.add_argument("--trees", type=int, default=TREES, help="examples for the forest")
    parser.add_argument("--only", choices=PARTS, help="a part, to the screen")
    parser.add_argument("--quick", action="store_true", help="little of it, and nothing is written")
    given = parser.parse_args()
    keys, examples, trees = (given.keys, given.examples, given.trees)
    cases = [(how, session) for session in SESSIONS for how in ("SIGKILL", "SIGTERM")]
    if given.quick:
        keys, examples, trees, cases = [10_000], 20_000, 2_000, [("SIGKILL", 2.0)]
    sections: dict[str, page.Section] = {
        "changelogs": lambda: changelog_section(keys),
        "log": lambda: log_section(examples, trees),
        "takeover": lambda: takeover_section(cases),
    }
    keep = not (given.quick or given.only)
    page.report("bench-recovery", page.wanted(sections, given.only), "aiokafka", "river", keep=keep)


if __name__ == "__main__":
    main()
