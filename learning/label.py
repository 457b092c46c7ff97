"""The label join: predictions wait for their outcome, outcomes for their prediction, both by event time.

The life of an id, `time` being its event's and `h` the pipeline's horizon:

    nothing --open--> waiting --resolve--> resolved --time passes--> forgotten
                      waiting --time + h passes--> expired --h passes--> forgotten
    nothing --resolve--> parked --open--> resolved
                         parked --label time + h passes--> forgotten (an orphan)

Each label gets one answer when it comes: matched, early, duplicate, corrected or late. Each early label gets a second
one when its wait ends: matched or late with its event, or orphan. Each event ends matched or expired.
"""

import heapq
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Literal, Protocol

import msgspec

from learning.negatives import is_kept
from learning.records import Correction, Example, Outcome, Prediction, Resolved, Value

Kind = Literal["matched", "early", "duplicate", "corrected", "late", "expired", "orphan"]
Expired = Literal["drop", "negative"]
Corrected = Literal["log", "learn"]

WATERMARKS = "\x00watermarks"
NEVER = -(1 << 62)
LATEST = 1 << 62


# `gc=False`: what these hold cannot lead back to them, so the collector need not look at one more object per event.
class Resolution(msgspec.Struct, frozen=True, gc=False):
    """What became of a label or of an event that waited for one, and the record it puts into the training log."""

    kind: Kind
    record: Resolved | None = None
    id: str = ""


class _Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: str
    time_ms: int
    prediction: Value
    version: int
    features: list[float]
    schema: str


class _Parked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: str
    label_time_ms: int
    outcome: Outcome


class _Resolved(msgspec.Struct, frozen=True, array_like=True, gc=False):
    outcome: Outcome
    event: _Waiting  # its vector only where corrections are learned


class _Watermarks(msgspec.Struct, array_like=True):
    event_ms: int = NEVER
    label_ms: int = NEVER


# An entry is this header, then MessagePack. State and due time are read far more often than the rest.
_HEADER = struct.Struct("<BBq")  # layout version, state, due time
_STATE = 1  # where the state is
_due_in = struct.Struct("<2xq").unpack_from
_pack = _HEADER.pack
_LAYOUT = 1
_WAITING, _PARKED, _RESOLVED, _EXPIRED = b"wpre"

KINDS = (_WAITING, _PARKED, _RESOLVED)
"""Of queues: what their due times are held against. Resolved and expired ids share the last."""
_REMEMBERED = bytes((_RESOLVED, _EXPIRED))
_KIND = {_WAITING: _WAITING, _PARKED: _PARKED, _RESOLVED: _RESOLVED, _EXPIRED: _RESOLVED}

_encode = msgspec.msgpack.Encoder().encode
_decode_waiting = msgspec.msgpack.Decoder(_Waiting).decode
_decode_parked = msgspec.msgpack.Decoder(_Parked).decode
_decode_resolved = msgspec.msgpack.Decoder(_Resolved).decode
_decode_watermarks = msgspec.msgpack.Decoder(_Watermarks).decode


class Queue(Protocol):
    """Ids by when they are due. One whose entry has moved on is passed over when it comes up."""

    @property
    def push(self) -> Callable[[tuple[int, str]], None]:
        """Add a due time and an id."""

    def due(self, clock: int) -> Iterator[tuple[int, str]]:
        """Remove and return what is due before the clock, the earliest first, as far as it is asked for."""


class HeapQueue:
    """A queue in memory.

    Most ids come in the order of their due times, as the records do. They are kept in that order in a deque, at either
    end of which nothing needs to be moved; the few that come out of order are in a heap beside it.
    """

    def __init__(self, items: Iterable[tuple[int, str]] = ()) -> None:
        self._ordered = deque(sorted(items))
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._ordered) + len(self._heap)

    def push(self, item: tuple[int, str]) -> None:
        """Add a due time and an id."""
        ordered = self._ordered
        if not ordered or item >= ordered[-1]:
            ordered.append(item)
        else:
            heapq.heappush(self._heap, item)

    def due(self, clock: int) -> Iterator[tuple[int, str]]:
        """Remove and return what is due before the clock, the earliest first, as far as it is asked for."""
        ordered, heap = self._ordered, self._heap
        while True:
            if heap and (not ordered or heap[0] < ordered[0]):
                if heap[0][0] >= clock:
                    return
                yield heapq.heappop(heap)
            elif ordered and ordered[0][0] < clock:
                yield ordered.popleft()
            else:
                return


def due_of(name: str, data: bytes) -> tuple[int, int] | None:
    """The kind of the queue that an entry waits in, and its due time in ms, from its header alone.

    None for the watermarks, which wait for nothing. Raises ValueError for an entry of another layout.
    """
    if name == WATERMARKS:
        return None
    layout, state, due = _HEADER.unpack_from(data)
    if layout != _LAYOUT:
        message = f"pending entry {name!r} has layout {layout}, expected {_LAYOUT}"
        raise ValueError(message)
    return _KIND[state], due


class PendingLabels:
    """The join over one partition's entries. All of its state is in `entries`: a copy of them continues alike.

    Where the entries come with queues, by their kinds, these have what `due_of` says of every entry. Without, heaps are
    built from the entries.

    An id is the same event whatever its key; events and labels of one id share a partition, as they share the key.
    Entries keep the horizon they were opened with.

    Of negatives only the share `negatives` goes to the log with its vector, which ones by their ids. An entry waits all
    the same: whether it will be a negative, nobody knows before its wait ends.
    """

    def __init__(
        self,
        entries: MutableMapping[str, bytes],
        *,
        horizon_ms: int,
        expired: Expired,
        corrected: Corrected,
        negatives: float = 1.0,
        queues: Mapping[int, Queue] | None = None,
    ) -> None:
        self._entries = entries
        self._get = entries.get
        self._horizon = horizon_ms
        self._negative = expired == "negative"
        self._learn_corrections = corrected == "learn"
        self._share = negatives
        marks = _decode_watermarks(entries[WATERMARKS]) if WATERMARKS in entries else _Watermarks()
        self._event_ms, self._label_ms = marks.event_ms, marks.label_ms
        self._waiting, self._parked, self._memories = map((queues or _heaps(entries)).__getitem__, KINDS)

    @property
    def event_ms(self) -> int:
        """Watermark of the events: the latest event time so far."""
        return self._event_ms

    @property
    def label_ms(self) -> int:
        """Watermark of the labels: the latest label time so far."""
        return self._label_ms

    def seen(self, id: str) -> bool:  # noqa: A002  # the record's own word
        """Whether an event of this id was here before; if so, the event is a duplicate."""
        data = self._get(id)
        return data is not None and data[_STATE] != _PARKED

    def open(self, prediction: Prediction) -> Resolution | None:
        """Let a prediction wait for its label. The resolution of an early label, where one was parked."""
        name, time_ms = prediction.id, prediction.time_ms
        data = self._get(name)
        if (data is not None and data[_STATE] != _PARKED) or name.startswith("\x00"):
            message = f"got prediction id {name!r}, expected one that is new; ask seen() first"
            raise ValueError(message)
        if time_ms > self._event_ms:
            self._event_ms = time_ms
            self._save_watermarks()
        if data is None:
            self._wait(prediction)
            return None
        parked = _decode_parked(data[_HEADER.size :])
        # By event time alone, so that the answer does not depend on when expire() last ran.
        if parked.label_time_ms + self._horizon < time_ms:
            self._wait(prediction)
            return Resolution("orphan", None, name)
        if time_ms + self._horizon < parked.label_time_ms:
            self._wait(prediction)
            return Resolution("late", None, name)
        return self._match(name, prediction, parked.outcome, parked.label_time_ms)

    def resolve(
        self,
        id: str,  # noqa: A002  # the record's own word
        key: str,
        outcome: Outcome,
        label_time_ms: int,
    ) -> Resolution:
        """What a label comes to."""
        if id.startswith("\x00"):
            message = f"got label id {id!r}, expected one that does not start with NUL"
            raise ValueError(message)
        if label_time_ms > self._label_ms:
            self._label_ms = label_time_ms
            self._save_watermarks()
        data = self._get(id)
        if data is None:
            self._park(id, _Parked(key, label_time_ms, outcome))
            return Resolution("early", None, id)
        state = data[_STATE]
        if state == _PARKED:
            return self._park_again(id, _decode_parked(data[_HEADER.size :]), outcome, label_time_ms)
        if state == _RESOLVED:
            return self._correct(id, _decode_resolved(data[_HEADER.size :]), outcome, label_time_ms)
        if state == _EXPIRED or _due_in(data)[0] < label_time_ms:
            # An entry that waits goes on to its expiry: it owes the log a negative example, or a count.
            return Resolution("late", None, id)
        return self._match(id, _decode_waiting(data[_HEADER.size :]), outcome, label_time_ms)

    def expire(self, *, labels_to: int, events_to: int, limit: int = 1000) -> list[Resolution]:
        """End waits that are over, `limit` entries at most; resolved and expired ids are forgotten on the way.

        An event's wait is over when the labels are known to have been read past its due time. Which that is, the
        caller knows: in a replay, or after an outage of the label topic, the label may be next, and among labels that
        are written at the same time the newest may come first.

        Args:
            labels_to: time in ms up to which no label is unread, whatever the labels' own times say; `LATEST` for
                all there are, `NEVER` where nothing is known.
            events_to: the same of events, for labels that wait for theirs.
            limit: how many waits to end at most.
        """
        latest = max(self._event_ms, self._label_ms)
        label_clock, event_clock = min(labels_to, latest), min(events_to, latest)
        resolutions: list[Resolution] = []
        for name in self._due(self._waiting, bytes((_WAITING,)), label_clock, limit):
            resolutions.append(self._expire(name))
        for name in self._due(self._parked, bytes((_PARKED,)), event_clock, limit - len(resolutions)):
            del self._entries[name]
            resolutions.append(Resolution("orphan", None, name))
        # A memory guards against repeated events and repeated labels, so both must have been read past its time.
        clock = min(label_clock, event_clock)
        for name in self._due(self._memories, _REMEMBERED, clock, limit - len(resolutions)):
            del self._entries[name]
        return resolutions

    def _due(self, queue: Queue, states: bytes, clock: int, limit: int) -> list[str]:
        """Pop up to `limit` ids of entries in these states that are due; one that has moved on costs its pop alone."""
        ids: list[str] = []
        if limit <= 0:
            return ids
        get = self._get
        for due, name in queue.due(clock):
            data = get(name)
            if data is None or data[_STATE] not in states:
                continue
            if _due_in(data)[0] == due and (not ids or ids[-1] != name):
                ids.append(name)
                if len(ids) == limit:
                    break
        return ids

    def _expire(self, name: str) -> Resolution:
        data = self._entries[name]
        due = _due_in(data)[0]
        event = _decode_waiting(data[_HEADER.size :])
        self._entries[name] = _pack(_LAYOUT, _EXPIRED, due + self._horizon)
        self._memories.push((due + self._horizon, name))
        record = self._example(name, event, False, due, "expiry") if self._negative else None
        return Resolution("expired", record, name)

    def _wait(self, made: Prediction) -> None:
        # A tuple is written as a `_Waiting` is, and costs less to make.
        body = _encode((made.key, made.time_ms, made.prediction, made.version, made.features, made.schema))
        due = made.time_ms + self._horizon
        self._entries[made.id] = _pack(_LAYOUT, _WAITING, due) + body
        self._waiting.push((due, made.id))

    def _park(self, name: str, parked: _Parked) -> None:
        due = parked.label_time_ms + self._horizon
        self._entries[name] = _pack(_LAYOUT, _PARKED, due) + _encode(parked)
        self._parked.push((due, name))

    def _park_again(self, name: str, parked: _Parked, outcome: Outcome, label_time_ms: int) -> Resolution:
        if parked.outcome == outcome:
            if parked.label_time_ms + self._horizon < label_time_ms:  # the first is out of reach, the second is not
                self._park(name, _Parked(parked.key, label_time_ms, outcome))
            return Resolution("duplicate", None, name)
        self._park(name, _Parked(parked.key, label_time_ms, outcome))
        return Resolution("corrected", None, name)  # nothing is learned yet, so the log has nothing to correct

    def _match(self, name: str, event: _Waiting | Prediction, outcome: Outcome, label_time_ms: int) -> Resolution:
        self._remember(name, event, outcome, label_time_ms)
        return Resolution("matched", self._example(name, event, outcome, label_time_ms, "label"), name)

    def _correct(self, name: str, memory: _Resolved, outcome: Outcome, label_time_ms: int) -> Resolution:
        if memory.outcome == outcome:
            return Resolution("duplicate", None, name)
        event = memory.event
        self._remember(name, event, outcome, label_time_ms)
        record: Resolved
        if self._learn_corrections and event.schema:
            record = self._example(name, event, outcome, label_time_ms, "correction")
        else:
            record = Correction(name, event.key, event.time_ms, label_time_ms, outcome, memory.outcome)
        return Resolution("corrected", record, name)

    def _remember(self, name: str, event: _Waiting | Prediction, outcome: Outcome, label_time_ms: int) -> None:
        time_ms = event.time_ms
        waiting: tuple[Any, ...] = (event.key, time_ms, 0.0, 0, (), "")
        if self._learn_corrections:
            waiting = (event.key, time_ms, event.prediction, event.version, event.features, event.schema)
        due = (label_time_ms if label_time_ms > time_ms else time_ms) + self._horizon
        self._entries[name] = _pack(_LAYOUT, _RESOLVED, due) + _encode((outcome, waiting))
        self._memories.push((due, name))

    def _example(
        self, name: str, event: _Waiting | Prediction, outcome: Outcome, label_time_ms: int, source: str
    ) -> Example:
        kept = outcome is not False or is_kept(name, self._share)
        return Example(
            name,
            event.key,
            event.time_ms,
            label_time_ms,
            event.prediction,
            event.version,
            event.features if kept else [],
            event.schema,
            outcome,
            source,
            kept,
        )

    def _save_watermarks(self) -> None:
        self._entries[WATERMARKS] = _encode((self._event_ms, self._label_ms))


def _heaps(entries: Mapping[str, bytes]) -> Mapping[int, Queue]:
    """The queues of all entries, in memory."""
    items: dict[int, list[tuple[int, str]]] = {kind: [] for kind in KINDS}
    for name, data in entries.items():
        place = due_of(name, data)
        if place is not None:
            items[place[0]].append((place[1], name))
    return {kind: HeapQueue(found) for kind, found in items.items()}
