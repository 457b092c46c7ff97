"""Control records on a real Kafka: workers freeze, thaw and go back at the same place, and stay one model."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from click.testing import CliRunner, Result

from app.cli import main
from app.status import scrape
from learning import snapshots
from learning.learn import Learner
from learning.records import Control, Example, LogRecord, Prediction, decode_log, encode
from streaming.brokers import free_port
from streaming.errors import EngineError
from streaming.follower import read_again
from streaming.snapshots import SnapshotStore
from tests.chaos.checker import check, truth
from tests.chaos.items import labels_of
from tests.folds import advance
from tests.integration.commands import Told

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

SLOTS = 12  # so that none is written over while a slow machine gets to the next command
EXAMPLES = 500  # between two snapshots
SETTINGS = {"HEADWATER_SNAPSHOT_EXAMPLES": str(EXAMPLES), "HEADWATER_SNAPSHOT_SLOTS": str(SLOTS)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Held(Told):
    """A run whose workers are told what to do as people tell them."""

    waiting = False
    slots = SLOTS

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "HEADWATER_SNAPSHOT_SLOTS": str(SLOTS)}

    async def headwater(self, *arguments: str, **settings: str) -> Any:
        """What a command says as JSON."""
        done = await asyncio.to_thread(self.called, *arguments, "--json", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def tried(self, *arguments: str) -> Result:
        """A command in this process, told nothing on its standard input."""
        env = {**self.environment, "HEADWATER_PIPELINE": "flights"}
        return CliRunner().invoke(main, list(arguments), env=env)

    async def refused(self, *arguments: str, **settings: str) -> str:
        """What a command says that fails."""
        done = await asyncio.to_thread(self.called, *arguments, "--json", **settings)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stderr

    async def behead(self, offset: int) -> None:
        """Delete the log's records before an offset, as retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.config.bootstrap)
        await admin.start()
        log = TopicPartition(self.pipeline.training_log_topic, 0)
        await admin.delete_records({log: RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def log_of(self) -> list[tuple[int, LogRecord]]:
        return [(r.offset, decode_log(r.value)) for r in await self.read(self.pipeline.training_log_topic)]

    async def trickle(self, items: list[Any], hurry: asyncio.Event) -> None:
        """Write a little, more while somebody waits, so that it lasts on a slow machine; the rest at once when told."""
        for start in range(0, len(items), 20):
            if hurry.is_set():
                await self.produce(items[start:])
                return
            await self.produce(items[start : start + 20])
            await asyncio.sleep(0.3 if self.waiting else 3.0)

    async def predictions(self) -> list[Prediction]:
        made = await self.read(self.pipeline.predictions_topic)
        return [msgspec.json.decode(record.value, type=Prediction) for record in made]

    async def more(self, examples: int = 60) -> list[Any]:
        """Wait for so many more records in the log; all of it, as Kafka has it."""
        topic = self.pipeline.training_log_topic
        wanted = len(await self.read(topic)) + examples
        self.waiting = True
        await self.until(0, wanted)
        self.waiting = False
        log = await self.read(topic)
        assert len(log) >= wanted, "the stream ended too early for this test"
        return log


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Held]:
    made = Held(kafka, tmp_path)
    yield made
    made.end()


def iso(time_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=time_ms)).isoformat()


async def stopped(run: Held, worker: Any) -> str:
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 40) == 0, run.last_words()
    return run.log(run.workers.index(worker)).read_text()


def times(text: str, words: str) -> Counter[str]:
    """How often each process of a worker has said something, by what its lines begin with behind the time."""
    return Counter(line.split("] ")[1] for line in text.splitlines() if words in line)


def test_two_workers_freeze_thaw_go_back_and_learn_anew_as_one(run: Held, year: list[Any]) -> None:
    items, port = year[:9_000], free_port()
    parts = [items[:4_600], items[4_600:8_200], items[8_200:8_500], items[8_500:8_750], items[8_750:]]

    async def scenario() -> None:
        await run.prepare()
        workers = [run.start(**SETTINGS, HEADWATER_WEB_PORT=str(port)), run.start(**SETTINGS)]
        await run.produce(parts[0])
        await run.more(2_100)  # so that there is a frozen copy, which the first rollback takes away
        enough = asyncio.Event()
        producing = asyncio.create_task(run.trickle(parts[1], enough))
        await run.more()
        frozen = await run.headwater("freeze", "--why", "bad labels", "--by", "ann")
        await run.more()
        seen = await run.headwater("status", HEADWATER_WEB_PORT=str(port))
        assert (seen["learning_frozen"], seen["control"]) == (True, {k: frozen[k] for k in seen["control"]})
        assert (frozen["by"], frozen["why"], frozen["action"]) == ("ann", "bad labels", "freeze")
        thawed = await run.headwater("thaw")
        assert "@" in thawed["by"]
        await run.more()
        back = await run.headwater("rollback", "--to", "1500", "--yes")
        log = await run.more()
        # Into what was rolled back, by the time of a record between the thaw and the rollback.
        place = next(n for n, record in enumerate(log) if record.offset > thawed["offset"] + 20)
        wanted = next(r.offset for r in log if r.timestamp > log[place].timestamp)
        again = await run.headwater("rollback", "--to", iso(log[place].timestamp), "--yes")
        assert (back["to"], again["to"]) == (1500, wanted)
        assert thawed["offset"] < wanted < back["offset"] < again["offset"]
        newest = [r.offset for r in await run.read(run.pipeline.training_log_topic) if b'"example"' in r.value][-400]
        anew = await run.headwater("relearn", "--last", "400", "--yes", "--why", "another world")
        assert newest <= anew["since"] < newest + 400
        faster = await run.headwater("boost", "--factor", "4", "--examples", "60")
        enough.set()
        await producing
        await run.produce(parts[2])
        done = [*parts[0], *parts[1], *parts[2]]
        await run.until(len(done) - len(labels_of(done)), len(labels_of(done)) + 6)
        samples = await scrape(f"http://127.0.0.1:{port}/metrics")
        assert samples is not None
        assert (samples["learning_frozen"], samples["control_offset"]) == (0.0, faster["offset"])
        words = list(await asyncio.gather(*(stopped(run, worker) for worker in workers)))
        assert all(set(times(text, "made again from version").values()) == {3} for text in words)

        # One that believes no snapshot folds the whole log, and takes three turns; the next starts from its snapshot.
        for part in parts[3:]:
            worker = run.start(**SETTINGS, HEADWATER_SNAPSHOT_KEY="k")
            await run.produce(part)
            done += part
            await run.until(len(done) - len(labels_of(done)), len(labels_of(done)) + 6)
            await run.saved(0, signed=True)
            await run.watched()
            words.append(await stopped(run, worker))
        assert set(times(words[2], "made again from version 0").values()) == {3}
        assert "starts from a snapshot" in words[3]
        assert "made again" not in words[3]

        lessons = await run.log_of()
        controls = [(offset, record.action) for offset, record in lessons if isinstance(record, Control)]
        assert controls == [(told["offset"], told["action"]) for told in (frozen, thawed, back, again, anew, faster)]
        await run.assert_all_true(items)
        assert_frozen(run, lessons, frozen["offset"], thawed["offset"])
        await assert_told(run, lessons)

    asyncio.run(scenario())


@pytest.mark.timeout(420)
def test_a_log_that_has_lost_its_head_goes_back_as_far_as_a_snapshot_reaches(run: Held, year: list[Any]) -> None:
    """Workers start, switch and go on by snapshots alone, and explain does; what nobody can give is refused."""
    done, topic = year[:4_500], run.pipeline.training_log_topic

    async def scenario() -> None:
        await run.prepare()
        worker = run.start(**SETTINGS)
        await run.produce(done[:2_500])
        await run.more(1_000)
        await run.saved(0)  # or there may be one at the end alone
        await run.produce(done[2_500:], seconds=5)  # so that predictions are made at many versions
        await run.until(len(done) - len(labels_of(done)), len(labels_of(done)))
        await run.saved(len(labels_of(done)) - EXAMPLES)
        await stopped(run, worker)
        store = SnapshotStore(run.config, run.pipeline.snapshots_topic, SLOTS)
        before = await run.log_of()
        made = await run.predictions()
        known = max(made, key=lambda prediction: prediction.version)
        versions = [snapshots.read_manifest(stored.manifest).version for stored in await store.read()]
        saved = [version for version in versions if version < known.version]
        assert saved
        lost = next(p for p in made if 0 < p.version < saved[0] and p.version not in saved)
        (whole,) = (await run.headwater("explain", known.id))["occurrences"]
        assert (whole["equal"], whole["snapshot"]) == (True, saved[0])
        (folded,) = (await run.headwater("explain", known.id, HEADWATER_SNAPSHOT_KEY="k"))["occurrences"]
        assert {**folded, "snapshot": saved[0]} == whole
        await run.behead(saved[0])

        # Predictions whose model a snapshot has are made again, and what only the head knew is not invented.
        (once,) = (await run.headwater("explain", known.id))["occurrences"]
        assert (once["equal"], once["again"], once["snapshot"]) == (True, whole["again"], saved[0])
        assert (once["explanation"], once["history"]["examples_before"]) == (whole["explanation"], None)
        words = await run.refused("explain", lost.id)
        assert f"begins at offset {saved[0]}, expected" in words

        # No snapshot is believed, so there is no model.
        worker = run.start(**SETTINGS, HEADWATER_SNAPSHOT_KEY="of-nobody")
        assert await asyncio.to_thread(worker.wait, 40) != 0
        assert f"begins at offset {saved[0]}, expected 0: its head has been removed" in run.last_words()

        workers = [run.start(**SETTINGS), run.start(**SETTINGS)]
        producing = asyncio.create_task(run.produce(year[4_500:6_500], seconds=12))
        await run.until(0, len(before) - sum(offset < saved[0] for offset, _ in before) + 200)
        target = saved[0] + 100
        words = await run.refused("rollback", "--to", str(lost.version), "--yes")
        assert f"reaches version {lost.version}" in words
        words = await run.refused("rollback", "--to", str(target), "--yes", HEADWATER_SNAPSHOT_KEY="k")
        assert "unsigned" in words
        back = await run.headwater("rollback", "--to", str(target), "--yes")
        await producing
        await run.produce(year[6_500:7_000], seconds=4)  # which are predicted after the rollback, however long it took
        done.extend(year[4_500:7_000])
        count = len(done) - len(labels_of(done))
        await run.until(count, len(labels_of(done)) + 1 - sum(offset < saved[0] for offset, _ in before))
        await run.saved(back["offset"])
        await run.watched()
        for one in workers:
            assert f"made again from version {saved[0]} in" in await stopped(run, one)
        lessons = [*(pair for pair in before if pair[0] < saved[0]), *await run.log_of()]
        assert [o for o, r in lessons if isinstance(r, Control)] == [back["offset"]]
        seen = msgspec.structs.replace(await run.seen(), log=lessons)
        verdict = check(run.pipeline, truth(run.pipeline, done), seen)
        assert verdict.wrong() == {}, verdict.cases
        latest = max(await run.predictions(), key=lambda prediction: prediction.version)
        (once,) = (await run.headwater("explain", latest.id))["occurrences"]
        assert (once["equal"], once["version"] > back["offset"]) == (True, True)

        # Somebody else's tool wrote what nobody can do: no worker guesses.
        producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap)
        await producer.start()
        await producer.send_and_wait(topic, encode(Control("rollback", 0, "ann", to=lost.version)), partition=0)
        await producer.stop()
        worker = run.start(**SETTINGS)
        assert await asyncio.to_thread(worker.wait, 40) != 0
        assert "a rollback needs what came from there on" in run.last_words()

    asyncio.run(scenario())


def assert_frozen(run: Held, lessons: list[tuple[int, LogRecord]], begin: int, end: int) -> None:
    """What came while learning was frozen is in the log and not in the model."""
    learner, counts = Learner(run.pipeline), {}
    for offset, record in lessons:
        advance(run.pipeline, learner, lessons, offset, record)
        counts[offset] = learner.examples
    held = [offset for offset, record in lessons if begin < offset < end and isinstance(record, Example)]
    assert len(held) > 30
    assert {counts[offset] for offset in held} == {counts[begin]}
    assert learner.learning


async def assert_told(run: Held, lessons: list[tuple[int, LogRecord]]) -> None:
    """Explain follows the rollbacks, and export passes them over."""
    made = [msgspec.json.decode(r.value, type=Prediction) for r in await run.read(run.pipeline.predictions_topic)]
    latest = max(made, key=lambda prediction: prediction.version)
    out = run.log(99).with_suffix(".csv")
    told, exported, seen = await asyncio.gather(
        run.headwater("explain", latest.id),
        run.headwater("export", "--out", str(out)),
        run.headwater("status", HEADWATER_WEB_PORT="1"),  # no worker: the log is looked through
    )
    (once,) = told["occurrences"]
    assert (once["equal"], once["again"], once["version"]) == (True, latest.prediction, latest.version)
    assert once["history"]["passed_over"] > 0
    assert exported["rows"] == sum(isinstance(record, Example) for _, record in lessons)
    assert (seen["worker"]["answers"], seen["learning_frozen"], seen["control"]["action"]) == (False, False, "boost")


def test_rollback_that_cannot_be_is_refused_and_writes_nothing(run: Held) -> None:
    example = Example("a", "k", 0, 1, 0.5, 0, [], "s", True, "label")
    log = TopicPartition(run.pipeline.training_log_topic, 0)

    async def written() -> None:
        await run.prepare()
        producer = AIOKafkaProducer(bootstrap_servers=run.config.bootstrap)
        await producer.start()
        for _ in range(5):
            await producer.send_and_wait(log.topic, encode(example), partition=0)
        await producer.stop()

    async def beheaded() -> None:
        await run.behead(2)
        with pytest.raises(EngineError, match="begins at offset 2, expected 0: a rollback needs"):
            await anext(read_again(run.config, log.topic, 0, 4))
        assert [r.offset async for chunk in read_again(run.config, log.topic, 2, 4) for r in chunk] == [2, 3]

    def refused(*arguments: str, code: int, words: str, command: str = "rollback") -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.control.pipeline_of", lambda _: run.pipeline)
            done = run.tried(command, *arguments)
        assert (done.exit_code, words in done.output) == (code, True), done.output

    asyncio.run(written())
    refused("--to", "6", "--yes", code=2, words="got version 6, expected at most 5")
    refused("--to", "-1", "--yes", code=2, words="got version -1, expected 0")
    refused("--to", "soon", "--yes", code=2, words="expected a version or an ISO time")
    refused("--to", "2999-01-01", "--yes", code=2, words="expected a time that has passed")
    refused("--to", "2", "--why", "x" * 1_001, code=2, words="expected at most 1000")
    refused("--to", "2", code=1, words="3 offsets of the training log")
    refused("--last", "3", code=1, words="learns offsets 2 to the end again", command="relearn")
    refused("--last", "0", code=1, words="learns offsets 5 to the end again", command="relearn")
    refused("--last", "9", code=1, words="learns offsets 0 to the end again", command="relearn")
    asyncio.run(beheaded())
    refused("--to", "3", "--yes", code=1, words="its head has been removed")
    refused("--last", "4", "--yes", code=1, words="has 3 examples left", command="relearn")
    refused("--to", "1", "--yes", code=1, words="reaches version 1,")
    assert [record for _, record in asyncio.run(run.log_of())] == [example] * 3
