"""Laws of state on disk; the oracle is the store in memory, recovered from the whole changelog.

Whatever is done to both, with cuts that are committed late or never, crashes at any moment, stores that are older than
the last crash, and changelogs that are compacted: both give the same resolutions, the same changelog records, and after
a crash the same state.
"""

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.label import KINDS, PendingLabels, due_of
from streaming import disk
from streaming.cache import Cache
from streaming.config import EngineConfig
from streaming.disk import DiskPartition, DiskQueue, place_of
from streaming.state import Changelog, Partition, Span, StatePartition
from streaming.stores import Store, Stores
from streaming.unit import Output
from tests.laws.test_label_lifecycle import EVENT, EXPIRE, HORIZON, LABEL, POLICIES, Driver

pytest.importorskip("rocksdict")

CUT = st.just(("cut",))
COMMIT = st.just(("commit",))
CRASH = st.tuples(st.just("crash"), st.sampled_from(["now", "committed", "old", "lost"]), st.integers(1, 5))
OTHERS = st.sampled_from([("compact",), ("keep",)])
INPUTS = EVENT | EVENT | LABEL | EXPIRE | EXPIRE
STEPS = st.lists(INPUTS | INPUTS | CUT | CUT | COMMIT | CRASH | OTHERS, min_size=30, max_size=60)
TOPIC = b"t" * 16


class Log:
    """A changelog: records by offset, with a marker behind each batch."""

    def __init__(self) -> None:
        self.records: dict[int, tuple[bytes, bytes | None]] = {}
        self.end = 0

    def append(self, changes: list[Output]) -> Span:
        span = Span(self.end, self.end + len(changes))
        for change in changes:
            assert change.key is not None
            self.records[self.end] = (change.key, change.value)
            self.end += 1
        self.end += 1
        return span

    def compact(self) -> None:
        newest = {key: offset for offset, (key, _) in self.records.items()}
        self.records = {offset: self.records[offset] for offset in sorted(newest.values())}

    def told(self) -> Changelog:
        return Changelog(0, self.end, time.time(), TOPIC, tombstones=86_400.0)

    def restore(self, part: Partition[Any], chunk: int) -> int:
        """Have a partition read it as recovery does; how many records it was given."""
        log = self.told()
        start = part.start(log)
        offsets = [offset for offset in self.records if offset >= start]
        for number in range(0, len(offsets), chunk):
            for offset in offsets[number : number + chunk]:
                part.restore(*self.records[offset])
            part.restored(offsets[number : number + chunk][-1] + 1, log)
        part.restored(log.end, log)
        return len(offsets)


class Both:
    """One partition twice: in memory and on disk. Whatever is asked of it is asked of both."""

    def __init__(self, folder: Path, policy: dict[str, Any]) -> None:
        self.folders = (folder / str(number) for number in itertools.count())
        self.policy = policy
        self.log = Log()
        self.stores = Stores(EngineConfig(bootstrap="nowhere:1", app_id="a", data_dir=folder, store="disk"))
        # A copy is what SIGKILL leaves only if nothing is removed while it is made.
        self.stores._options.set_disable_auto_compactions(disable=True)
        self.stores._options.set_level_zero_slowdown_writes_trigger(1_000)
        self.stores._options.set_level_zero_stop_writes_trigger(1_000)
        self.kept: Path | None = None
        self.pending: list[Output] = []
        self.path = next(self.folders)
        self.open(1)

    def open(self, chunk: int) -> None:
        self.memory: StatePartition[bytes] = StatePartition("t", load=lambda _, data: data, dump=bytes)
        self.store = Store(self.path, self.stores._options, "s")
        self.disk: DiskPartition[bytes] = DiskPartition(
            "t",
            self.store,
            cache=Cache(2_000),
            load=lambda _, data: data,
            dump=bytes,
            due_of=due_of,
            kinds=KINDS,
        )
        self.log.restore(self.memory, chunk)
        self.log.restore(self.disk, chunk)
        assert dict(self.disk) == self.memory
        self.ours = Driver(self.join(self.disk), {})
        self.theirs = Driver(self.join(self.memory), {})
        self.pending = []

    def join(self, part: Partition[bytes]) -> PendingLabels:
        return PendingLabels(part, horizon_ms=HORIZON, queues=part.queues, **self.policy)

    def take(self, step: tuple[Any, ...], number: int) -> None:
        match step:
            case ("cut",):
                self.cut()
            case ("commit",):
                self.commit()
            case "crash", when, chunk:
                self.crash(when, chunk)
            case ("compact",):
                self.log.compact()
            case ("keep",):
                self.kept = self.copy()
            case _:
                assert self.ours.take(step, number) == self.theirs.take(step, number)

    def cut(self) -> None:
        self.commit()
        self.pending = self.memory.take_changes()
        assert self.disk.take_changes() == self.pending

    def commit(self) -> None:
        if self.pending:
            self.disk.committed(self.log.append(self.pending))
            self.pending = []

    def crash(self, when: str, chunk: int) -> None:
        """As SIGKILL leaves it: the folder as it is while the store is open, and nothing that is in memory."""
        if when == "committed" and self.pending:  # and the store was not told any more
            self.log.append(self.pending)
        copy = self.copy()
        self.disk.close()
        if when == "old" and self.kept is not None:
            copy = self.kept
        elif when == "lost":
            copy = next(self.folders)
        self.path = next(self.folders)
        if copy.exists():
            shutil.copytree(copy, self.path)
        self.open(chunk)

    def copy(self) -> Path:
        copy = next(self.folders)
        shutil.copytree(self.path, copy)
        return copy


@contextmanager
def both(policy: dict[str, Any]) -> Iterator[Both]:
    with tempfile.TemporaryDirectory() as folder, patch.object(disk, "READ_AHEAD", 2):
        made = Both(Path(folder), policy)
        yield made
        made.disk.close()


@settings(max_examples=10)
@given(STEPS, POLICIES)
def test_state_on_disk_is_as_in_memory(steps: list[tuple[Any, ...]], policy: dict[str, Any]) -> None:
    with both(policy) as one:
        for number, step in enumerate(steps):
            one.take(step, number)
        one.cut()
        one.crash("committed", 3)
        one.take(("label", "last", 1000, True), 0)
        for number in range(4):  # and everything comes up in the same order
            one.take(("expire", True, True, 3), number)
            one.cut()
        one.take(("expire", True, True, 100), number)
        one.cut()
        one.commit()
        assert set(one.disk) == set(one.memory) <= {"last", "\x00watermarks"}
        assert len(list(one.store.all_keys(disk.QUEUE))) == 1, "what has been taken from a queue stays on disk"


class Keys:
    """The keys of a store, and a batch for it."""

    def __init__(self) -> None:
        self.there: set[bytes] = set()
        self.delete = self.there.discard

    def keys(self, prefix: bytes, start: bytes, most: int) -> list[bytes]:
        return sorted(key for key in self.there if key.startswith(prefix) and key >= start)[:most]


MOVES = st.lists(
    st.tuples(st.just("push"), st.sampled_from("abcdef"), st.integers(-9, 9))
    | st.tuples(st.just("pop"), st.integers(-9, 10), st.integers(1, 3))
    | st.sampled_from([("cut",), ("commit",)]),
    min_size=30,  # else lists are short, and what takes many moves never comes
    max_size=60,
)


@settings(max_examples=100)
@given(MOVES, st.integers(1, 3))
def test_a_queue_on_disk_gives_every_entry_once_and_in_order(moves: list[tuple[Any, ...]], ahead: int) -> None:
    """Entries are (due, key) by their key; one is changed by a push, removed when it comes up, saved by a commit."""
    store: Any = Keys()
    queue = DiskQueue(store, 1)
    entries: dict[str, int] = {}
    changed, saving = set[str](), dict[str, int | None]()
    there = set[tuple[int, str]]()  # pushed and not popped since, whether its entry has moved on or not
    with patch.object(disk, "READ_AHEAD", ahead):
        for move in [*moves, ("pop", 10, 100)]:
            match move:
                case "push", key, due:
                    entries[key] = due
                    changed.add(key)
                    queue.push((due, key))
                    there.add((due, key))
                case "pop", clock, most:
                    expected = sorted((due, key) for key, due in entries.items() if due < clock)[:most]
                    found = []
                    for due, key in queue.due(clock):
                        assert (due, key) in there
                        there.remove((due, key))
                        if entries.get(key) == due:
                            found.append((due, key))
                            del entries[key]
                            changed.add(key)
                            if len(found) == most:
                                break
                    assert found == expected
                case ("cut",) if not saving:
                    queue.cut()
                    saving, changed = {key: entries.get(key) for key in changed}, set()
                case ("commit",) if saving:
                    queue.leave(store)
                    places = [place_of(1, due, key) for key, due in saving.items() if due is not None]
                    store.there.update(places)
                    queue.landed(places)
                    saving = {}
                    assert not queue._cut, "what is on disk stays in memory"


def test_what_lands_among_keys_that_were_read_is_found_and_the_rest_stays() -> None:
    store: Any = Keys()
    queue = DiskQueue(store, 1)

    def commit(*items: tuple[int, str]) -> None:
        for item in items:
            queue.push(item)
        queue.cut()
        places = [place_of(1, *item) for item in items]
        store.there.update(places)
        queue.landed(places)

    commit((1, "a"), (5, "b"))
    assert list(queue.due(0)) == []  # and both have been read
    commit((3, "c"))
    assert list(queue.due(9)) == [(1, "a"), (3, "c"), (5, "b")]
