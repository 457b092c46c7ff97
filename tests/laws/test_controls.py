"""Law of control records: frozen, thawed or rolled back, a worker is at every version the fold by the book.

The worker's own code, with the log and the snapshots in memory: it starts from any snapshot or from none, and makes
earlier models again from any snapshot or from none.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import learn
from agents.loop import Loop
from agents.snapshots import Shelf, SnapshotPolicy, Snapshots
from app import explain as explaining
from app import replay
from learning import snapshots
from learning.learn import Learner, copy_of
from learning.records import Control, Example, LogRecord, Prediction, encode
from streaming.config import EngineConfig
from streaming.engine import Engine
from streaming.follower import Lesson
from streaming.snapshots import Stored
from streaming.telemetry import RecordingMetrics
from tests.doubles import TinyFeatures, tiny_pipeline
from tests.folds import advance, fold
from tests.laws.test_snapshot_models import state_of

PIPELINE: Any = tiny_pipeline(training_log_topic="log", baseline_examples=3)
VECTOR = [1.0, 2.0]
SCHEMA = TinyFeatures.schema
MOST = 5  # rollbacks in a log: each doubles what folding by the book costs

Log = list[tuple[int, LogRecord]]


def example(x: float) -> Example:
    return Example("a", "k", 0, 1, 0.5, 0, [x, 0.0], TinyFeatures.schema, x > 0, "label")


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Examples, most of them; control records of every kind, to anywhere, beyond the log too; offsets with gaps."""
    kinds = st.sampled_from(["example"] * 7 + ["freeze", "thaw", "boost", "relearn", "rollback", "rollback"])
    log: Log = []
    offset = rollbacks = 0
    for kind in draw(st.lists(kinds, min_size=1, max_size=30)):
        offset += draw(st.integers(1, 2))
        rollbacks += kind == "rollback"
        if kind == "example" or (kind == "rollback" and rollbacks > MOST):
            log.append((offset, example(draw(st.integers(-3, 3)))))
        elif kind == "rollback":
            log.append((offset, Control("rollback", 0, "ann", to=draw(st.integers(0, offset + 1)))))
        elif kind == "relearn":
            log.append((offset, Control("relearn", 0, "ann", since=draw(st.integers(0, offset + 1)))))
        elif kind == "boost":
            factor, examples = draw(st.sampled_from([0.5, 8.0])), draw(st.integers(1, 4))
            log.append((offset, Control("boost", 0, "ann", factor=factor, examples=examples)))
        else:
            log.append((offset, Control(cast("Any", kind), 0, "ann")))
    return log


class Store:
    """Snapshots in memory."""

    def __init__(self, found: Sequence[Stored]) -> None:
        self.found = list(found)

    async def read(self) -> list[Stored]:
        """All of them."""
        return list(self.found)


def stored(log: Log, version: int, *, damaged: bool = False) -> Stored:
    manifest, chunks = snapshots.dump(fold(PIPELINE, log, version), PIPELINE, created_ms=1)
    return Stored(version, version, manifest, [b"damaged"] if damaged else chunks)


def record(offset: int, entry: LogRecord) -> Any:
    return SimpleNamespace(offset=offset, value=encode(entry))


def asked(learner: Learner) -> Any:
    """What the model says, without the traces that asking leaves in it."""
    return learner.predict_with(copy_of(learner.model), VECTOR)


def worker(found: Sequence[Stored]) -> Loop:
    config = EngineConfig(bootstrap="nowhere:1", app_id="app")
    metrics = RecordingMetrics()
    engine = Engine(config, log_topic="log", metrics=metrics, fatal=lambda exc: asyncio.sleep(0))
    loop = Loop(cast("Any", SimpleNamespace(engine=engine)), PIPELINE)
    loop.snapshots = Snapshots(loop, cast("Any", Store(found)), SnapshotPolicy(10, 10.0, 4))
    return loop


def taught(
    log: Log, at_start: Sequence[Stored], later: Sequence[Stored], expected: Sequence[Any], at_once: int = 1
) -> Learner:
    """A worker that started from the first snapshots and found the others later; held to what is expected.

    Lessons have so many records.
    """

    async def read_again(_config: Any, _topic: str, start: int, stop: int) -> AsyncGenerator[list[Any], None]:
        yield [record(offset, entry) for offset, entry in log if start <= offset < stop]

    async def follow() -> Learner:
        loop = worker(at_start)
        assert loop.snapshots is not None
        begin = await loop.snapshots.restore()
        loop.snapshots._store = cast("Any", Store(later))
        news = [(*entry, answer) for entry, answer in zip(log, expected, strict=True) if entry[0] >= begin]
        for first in range(0, len(news), at_once):
            lesson = news[first : first + at_once]
            last, _, answer = lesson[-1]
            records = [record(offset, entry) for offset, entry, _ in lesson]
            await learn.learn(loop, Lesson(records, last + 1, last + 1))
            assert (loop.learner.version, asked(loop.learner)) == (last + 1, answer)
        return loop.learner

    with patch.object(learn, "read_again", read_again):
        return asyncio.run(follow())


@settings(max_examples=150)
@given(logs(), st.data())
def test_workers_are_the_fold_by_the_book_wherever_they_start(log: Log, data: st.DataObject) -> None:
    whole, expected = Learner(PIPELINE), []
    for offset, entry in log:
        advance(PIPELINE, whole, log, offset, entry)
        expected.append(asked(whole))
    versions = st.lists(st.integers(0, whole.version), max_size=3, unique=True).map(sorted)
    later = [
        stored(log, version, damaged=data.draw(st.booleans(), "damaged"))
        for version in data.draw(versions, "snapshots")
    ]
    start = [stored(log, version) for version in data.draw(versions, "start")][-1:]
    workers = [
        taught(log, [], later, expected),
        taught(log, start, later[:1], expected),
        taught(log, start, [], expected),
        taught(log, [], later, expected, data.draw(st.integers(2, 9), "records of a lesson")),
    ]
    for one in workers:
        assert state_of(one) == state_of(whole)
        for offset in range(whole.version + 1):
            ours, theirs = one.frozen_at(offset), whole.frozen_at(offset)
            assert (ours is None) == (theirs is None)
            assert ours is None or one.predict_with(ours, VECTOR) == one.predict_with(theirs, VECTOR)


class Topic:
    """A log that is all in memory, as `app.replay` reads one."""

    name = "log"

    def __init__(self, log: Log, begin: int = 0) -> None:
        self._log = [(offset, entry) for offset, entry in log if offset >= begin]
        self.begin = begin
        self.end = log[-1][0] + 1

    async def records(
        self, start: int = 0, stop: int | None = None, progress: replay.Progress = replay.nothing
    ) -> AsyncGenerator[Any, None]:
        """Records from start to before stop."""
        for offset, entry in self._log:
            if start <= offset < (1 << 62 if stop is None else stop):
                progress(offset, 0)
                yield record(offset, entry)


@given(logs(), st.integers(0, 61), st.integers(0, 61))
def test_replay_is_the_fold_by_the_book_and_shows_each_record_once(log: Log, one: int, other: int) -> None:
    first, then = sorted((one, other))
    seen: list[int] = []

    async def replayed() -> tuple[bytes, Learner]:
        topic: Any = Topic(log)
        made = await replay.learner_at(PIPELINE, topic, first, see=lambda offset, _: seen.append(offset))
        before = state_of(made)
        return before, await replay.learner_at(
            PIPELINE, topic, then, start=made, see=lambda offset, _: seen.append(offset)
        )

    before, after = asyncio.run(replayed())
    assert before == state_of(fold(PIPELINE, log, first))
    assert state_of(after) == state_of(fold(PIPELINE, log, then))
    assert seen == [offset for offset, _ in log if offset < then]


def told(log: Log, begin: int, saved: Sequence[Stored], versions: Sequence[int]) -> tuple[list[Any], list[Any], int]:
    """What `headwater explain` says of predictions at these versions, of a log that begins there; and refusals."""
    refused: list[Any] = []
    shelf = Shelf(saved, PIPELINE, (), lambda stored, error: refused.append(error))
    found = [
        (explaining.Origin("p", 0, n), Prediction("a", "k", 0, asked(fold(PIPELINE, log, v)), v, VECTOR, SCHEMA))
        for n, v in enumerate(versions)
    ]
    topic: Any = Topic(log, begin)
    accounts, mentions = asyncio.run(
        explaining.account(PIPELINE, topic, "a", found, bar=lambda _: replay.nothing, saved=shelf)
    )
    return accounts, mentions, len(refused)


def without_base(account: Any) -> Any:
    again = msgspec.structs.replace(account.again, base=0)
    return (account.found, again, account.differences, account.explanation, vars(account.history))


@settings(max_examples=25)
@given(logs(), st.data())
def test_explain_says_the_same_with_snapshots_and_without(log: Log, data: st.DataObject) -> None:
    """Also by way of older ones where the newest is damaged; and where the log's head is gone, the same or nothing."""
    end = log[-1][0] + 1
    places = st.lists(st.integers(0, end), min_size=1, max_size=3)
    versions = data.draw(places, "versions")
    saved = [stored(log, v, damaged=data.draw(st.booleans(), "damaged")) for v in sorted(set(data.draw(places)))]
    whole, mentions, _ = told(log, 0, [], versions)
    quick, again, refused = told(log, 0, saved[::-1], versions)
    assert ([without_base(a) for a in quick], again) == ([without_base(a) for a in whole], mentions)
    assert [a.differences for a in whole] == [[]] * len(versions)
    assert refused <= sum(one.chunks == [b"damaged"] for one in saved)

    begin = data.draw(st.integers(1, end), "begin")
    left, said, _ = told(log, begin, saved[::-1], versions)
    assert said == [(offset, record) for offset, record in mentions if offset >= begin]
    good = [snapshots.read_manifest(one.manifest).version for one in saved if one.chunks != [b"damaged"]]
    for version, account in zip(versions, left, strict=True):
        assert account.again.passed_over is None
        base = max((at for at in [0, *good] if at <= version), default=0)
        turned = ("rollback", "relearn")
        rolled = any(isinstance(r, Control) and r.action in turned and base <= o < version for o, r in log)
        if base >= min(begin, version) and not rolled:
            assert (account.differences, account.again.base) == ([], base)
        elif base < min(begin, version):
            assert [difference.what for difference in account.differences] == ["log truncated"]
            assert (account.again.value, account.explanation) == (None, None)
        else:  # whether a turn on the way can be made is for the snapshots before it to say; never a wrong answer
            assert {difference.what for difference in account.differences} <= {"log truncated"}
