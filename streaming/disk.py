"""State of one partition on disk: what is not committed yet in memory, the rest in RocksDB.

Nothing that Kafka has not committed is ever in the store. At a cut the changes are encoded once, for the changelog;
when they are committed, the same bytes go to the store in one batch with the changelog's offset behind them. So the
store is the changelog up to that offset, whenever the process ends.

Keys of the store: `v` and the key of a value; `q`, the kind, the due time and the key of an entry of a queue; `m`, what
the store knows about itself.
"""

import heapq
import itertools
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from streaming.cache import MISSING, Cache
from streaming.state import GONE, Changelog, Partition, Span
from streaming.stores import Batch, Store
from streaming.unit import Output

V = TypeVar("V")
Due = tuple[int, str]
DueOf = Callable[[str, bytes], tuple[int, int] | None]
"""The kind of queue and the due time of an entry, from its key and value alone; None for one in no queue."""

VALUE, QUEUE = b"v", b"q"
READ_AHEAD = 256  # keys of a queue that are read at once
_PLACE = struct.Struct(">cBQ")  # due times are signed; with the first bit turned over they sort as bytes
_SIGN = 1 << 63
_numbers = itertools.count()


def place_of(kind: int, due: int, key: str) -> bytes:
    """The store's key for an entry of a queue: bytes that sort as (due, key) do.

    >>> sorted([place_of(1, 5, "a"), place_of(1, -3, "b"), place_of(1, 5, "Z")])[0][-1:]
    b'b'
    """
    return _PLACE.pack(QUEUE, kind, (due + _SIGN) & (2 * _SIGN - 1)) + key.encode()


def due_at(place: bytes) -> Due:
    """Due time and key, of a store's key.

    >>> due_at(place_of(1, -3, "b"))
    (-3, 'b')
    """
    return _PLACE.unpack_from(place)[2] - _SIGN, place[_PLACE.size :].decode()


class DiskQueue:
    """Keys of one kind by when they are due: on disk as of the last commit, and beside it what came and went since.

    An item whose entry has moved on stays until it is due, as in a heap; its owner passes it over then.
    """

    def __init__(self, store: Store, kind: int) -> None:
        self.kind = kind
        self._store = store
        self._prefix = bytes([QUEUE[0], kind])
        # Two heaps, of what came since the last cut and of what it took, and two sets of what has been removed.
        self._fresh: list[Due] = []
        self._cut: list[Due] = []
        self._taken: set[Due] = set()
        self._leaving: set[Due] = set()
        # What has been read from the disk and not been removed, up to `_next`; whether there was more behind.
        self._ahead: deque[Due] = deque()
        self._next = self._prefix
        self._more = True
        self.push: Callable[[Due], None] = partial(heapq.heappush, self._fresh)

    def due(self, clock: int) -> Iterator[Due]:
        """Remove and return what is due before the clock, the earliest first."""
        while (first := self._first()) is not None and first[0] < clock:
            for heap in (self._fresh, self._cut):
                while heap and heap[0] == first:
                    heapq.heappop(heap)
            if self._ahead and self._ahead[0] == first:
                self._ahead.popleft()
            self._taken.add(first)
            yield first

    def _first(self) -> Due | None:
        self._look_ahead()
        return min((heads[0] for heads in (self._fresh, self._cut, self._ahead) if heads), default=None)

    def _look_ahead(self) -> None:
        """Have the first on disk that has not been removed at hand, if there is one."""
        ahead = self._ahead
        while True:
            while ahead and (ahead[0] in self._taken or ahead[0] in self._leaving):
                ahead.popleft()
            if ahead or not self._more:
                return
            keys = self._store.keys(self._prefix, self._next, READ_AHEAD)
            self._more = len(keys) == READ_AHEAD
            if keys:
                ahead.extend(map(due_at, keys))
                self._next = keys[-1] + b"\x00"

    def cut(self) -> None:
        """What came and went so far belongs to the cut that is being taken."""
        for item in self._fresh:
            heapq.heappush(self._cut, item)
        self._fresh.clear()
        self._leaving |= self._taken
        self._taken = set()

    @property
    def leaving(self) -> bool:
        """Whether anything is to be removed from the disk."""
        return bool(self._leaving)

    def leave(self, batch: Batch) -> None:
        """Add to a batch, first of all, the removal of what went until the last cut."""
        for due, key in self._leaving:
            batch.delete(place_of(self.kind, due, key))

    def landed(self, places: Sequence[bytes]) -> None:
        """Told that what the last cut took is on disk, and at which places."""
        self._cut.clear()
        self._leaving = set()
        if not places:
            return
        self._more = True
        first = min(places)
        if first < self._next:  # among what has been read, so it is read once more
            if self._ahead:
                first = min(first, place_of(self.kind, *self._ahead[0]))
            self._ahead.clear()
            self._next = first


class DiskPartition(Partition[V]):
    """A partition in a store.

    Values that were read or written lately are kept decoded in a cache that all partitions of the worker share; keys
    that are not committed yet are pinned.

    Args:
        topic: the changelog.
        store: where it is kept.
        cache: decoded values; None where decoding costs nothing.
        load: a value from its key and bytes.
        dump: the bytes of a value.
        due_of: the queue that an entry is in; None where there are no queues.
        kinds: of queues.
        transactional: whether nobody else can have written to the changelog meanwhile.
    """

    on_disk = True

    def __init__(
        self,
        topic: str,
        store: Store,
        *,
        cache: Cache | None,
        load: Callable[[str, bytes], V],
        dump: Callable[[V], bytes],
        due_of: DueOf | None = None,
        kinds: Sequence[int] = (),
        transactional: bool = True,
    ) -> None:
        self.topic = topic
        self._store = store
        self._cache = cache
        self._load = load
        self._dump = dump
        self._due_of = due_of
        self._transactional = transactional
        self._owner = next(_numbers)
        self._queues = {kind: DiskQueue(store, kind) for kind in kinds}
        self.queues = dict(self._queues) if due_of is not None else None
        self._changed: dict[str, Any] = {}  # since the last cut, in order; GONE where removed
        self._saving: dict[str, tuple[Any, bytes, bytes | None]] = {}  # value, key and bytes as the last cut took them
        self._latest: tuple[str | None, Any] = (
            None,
            GONE,
        )  # what was read from the store last: an id is asked for thrice
        self._taken_at = 0.0
        self._restoring: Batch | None = None

    # -- a mapping

    def __getitem__(self, key: str) -> V:
        value: Any = self._find(key)
        if value is GONE:
            raise KeyError(key)
        found: V = value
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """The value, else the default."""
        value = self._find(key)
        return default if value is GONE else value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not GONE

    def __setitem__(self, key: str, value: V) -> None:
        self._changed[key] = value

    def __delitem__(self, key: str) -> None:
        if self._find(key) is GONE:
            raise KeyError(key)
        self._changed[key] = GONE

    def pop(self, key: str, *default: V) -> V:  # type: ignore[override]  # only the forms MutableMapping's users call
        """Remove the key and return its value, else the default."""
        value: Any = self._find(key)
        if value is not GONE:
            self._changed[key] = GONE
            found: V = value
            return found
        if default:
            return default[0]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        """Every key, those on disk first. Reads all of the store, so it is for tests and tools."""
        beside = self._saving | self._changed
        for place in self._store.all_keys(VALUE):
            key = place[1:].decode()
            if key not in beside:
                yield key
        yield from [key for key in beside if self._find(key) is not GONE]

    def __len__(self) -> int:
        """How many keys there are; as costly as iterating."""
        return sum(1 for _ in self)

    def _find(self, key: str) -> Any:
        value = self._changed.get(key, MISSING)
        if value is not MISSING:
            return value
        saving = self._saving.get(key)
        if saving is not None:
            return saving[0]
        if self._cache is not None:
            value = self._cache.get(self._owner, key)
            if value is not MISSING:
                return value
        if key == self._latest[0]:
            return self._latest[1]
        data = self._store.get(VALUE + key.encode())
        value = GONE if data is None else self._load(key, data)
        if data is not None and self._cache is not None:
            self._cache.put(self._owner, key, value, len(data))
        else:
            self._latest = key, value
        return value

    # -- checkpoints

    def take_changes(self) -> list[Output]:
        """The changelog records of the keys changed since the last call; a removed key is a tombstone.

        Raises RuntimeError where what was taken before is not known to be committed.
        """
        if self._saving:
            message = f"changes of {self.topic} are taken while those of the last cut are not committed"
            raise RuntimeError(message)
        self._taken_at = time.time()
        for key, value in self._changed.items():
            self._saving[key] = (value, key.encode(), None if value is GONE else self._dump(value))
        self._changed = {}
        for queue in self._queues.values():
            queue.cut()
        return [Output(name, data) for _, name, data in self._saving.values()]

    def committed(self, span: Span | None) -> None:
        """Write what was taken last to the store, in one batch with the offset behind it.

        An offset that is not known, or that others have written before, is passed over: the store keeps its own, and
        what is read again from there when it is opened next is what it has already.

        Raises StoreError.
        """
        if not self._saving and not any(queue.leaving for queue in self._queues.values()):
            return
        batch, places = Batch(), dict[int, list[bytes]]()
        for queue in self._queues.values():
            queue.leave(batch)
        for key, (_, name, data) in self._saving.items():
            self._add(batch, key, name, data, places)
        if span is not None and span.first >= 0 and (self._transactional or span.first == self._store.position):
            self._store.write(batch, span.after, self._taken_at)
        else:
            self._store.write(batch, self._store.position)
        for kind, queue in self._queues.items():
            queue.landed(places.get(kind, ()))
        saved, self._saving = self._saving, {}
        self._latest = None, GONE
        if self._cache is not None:
            for key, (value, _, data) in saved.items():
                if data is None:
                    self._cache.drop(self._owner, key)
                else:  # one that has changed since is found among the changes first
                    self._cache.put(self._owner, key, value, len(data))

    def _add(self, batch: Batch, key: str, name: bytes, data: bytes | None, places: dict[int, list[bytes]]) -> None:
        if data is None:
            batch.delete(VALUE + name)
            return
        batch.put(VALUE + name, data)
        place = None if self._due_of is None else self._due_of(key, data)
        if place is not None:
            at = place_of(*place, key)
            batch.put(at, b"")
            places.setdefault(place[0], []).append(at)

    # -- recovery

    def start(self, log: Changelog) -> int:
        """The offset from which the changelog is to be read; a store that is not to be believed is emptied."""
        return self._store.start(log, transactional=self._transactional)

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Apply one changelog record, at the latest when `restored` is called. Raises what `load` raises."""
        name = key.decode()
        if value is not None:
            self._load(name, value)  # what cannot be read is refused now, and not when it is needed
        if self._restoring is None:
            self._restoring = Batch()
        self._add(self._restoring, name, key, value, {})

    def restored(self, position: int, log: Changelog) -> None:
        """Write what was restored, with the changelog's position behind it. Raises StoreError."""
        batch, self._restoring, self._latest = self._restoring or Batch(), None, (None, GONE)
        # Before the end is reached, removals behind the position may be as old as the store's stamp.
        self._store.write(batch, position, log.asked if position >= log.end else None)

    def close(self) -> None:
        """Close the store and forget what is cached of it."""
        self._store.close()
        if self._cache is not None:
            self._cache.forget(self._owner)
