"""What one unit tells about what went through it: gathered per event, summed up some thousands at a time.

    score, label --call per record--> Collector --take, at each cut of the unit--> Summary records

Per event it only writes the numbers into a row, while they are at hand. When some thousands are there or the unit is
cut, all rows are binned at once, column by column, however many summaries they make: so what NumPy costs a call is
shared by many events. What follows from something else is not binned: the columns of the vector that only say which
value a field has follow from how often each value came, and a field's number that is in the vector is there already.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec.structs import replace

from learning.records import Prediction, Value
from learning.reports import Sketch, Summary
from learning.scored import Ints
from learning.sketch import categories_of, copy_of, indicator, numbers_of, sketches_of_parts
from learning.vectors import Floats
from pipelines.streams import annotations_of, kinds_of

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

MOST = 2_000
"""Events that one summary is about at most."""
GATHERED = 2 * MOST
"""Events from which on those that make whole summaries are summed up."""
FEW = 100
"""Events from which on a summary ends where another day of event time begins, so that windows are whole days."""
DAY_MS = 86_400_000
_HEAD = 3  # numbers of a row before the vector: time in ms, version and what stands for the prediction
_DOUBLE = 9  # bytes of one in MessagePack, the first of which says that it is one

_encode_into = msgspec.msgpack.Encoder().encode_into


class Fields:
    """Which fields of a pipeline's events are watched, and as what.

    Left out are the id, which is new with every event, and the time; and types that are neither numbers nor texts,
    truths or enumerations.

    Attributes:
        numbers: names of the fields that are numbers.
        categories: names of the others. A key is one whatever its type.
    """

    def __init__(self, pipeline: "Pipeline") -> None:
        stream = pipeline.events
        self.numbers: list[str] = []
        self.categories: list[str] = []
        for name, annotation in annotations_of(stream.struct).items():
            if name in (stream.id, stream.time):
                continue
            kinds = kinds_of(annotation) - {NoneType}
            if name == stream.key or (kinds and all(_is_category(kind) for kind in kinds)):
                self.categories.append(name)
            elif kinds and kinds <= {int, float}:
                self.numbers.append(name)


class Collector:
    """Gathers what goes through one unit, and is emptied at each of its cuts.

    Args:
        pipeline: the pipeline.
        partition: the unit's.
        worker: who owns it.
        cycle_ms: length of the day, or of whatever cycle of event time the windows of `learning.survey` are made of.
    """

    def __init__(self, pipeline: "Pipeline", partition: int, worker: str, *, cycle_ms: int = DAY_MS) -> None:
        self.partition = partition
        self.worker = worker
        self._cycle = cycle_ms
        self._tile = max(pipeline.horizon_ms // 24, 1)
        features, fields = pipeline.feature_set, Fields(pipeline)
        self._width, self._copied = len(features.names), features.copied
        self._fields, self._categories = fields.numbers, fields.categories
        self._indicators = [each for each in features.indicators if each.field in fields.categories]
        follow = {place for each in self._indicators for place in each.places.values()}
        self._own = [place for place in range(self._width) if place not in follow]
        self._numbers = [name for name in fields.numbers if name not in features.copied]
        self._opened = True
        self._events: list[Any] = []
        self._rows = bytearray()  # one for each of them, all of one length
        self._row = len(msgspec.msgpack.encode([*[0.0] * _HEAD, [0.0] * self._width]))
        self._day = 0
        self._parts: list[Summary] = []
        self._labels: defaultdict[str, int] = defaultdict(int)  # a Counter takes twice as long to count one
        self._dead_letters: defaultdict[str, int] = defaultdict(int)
        self._duplicates = 0
        self._late = 0
        self._waited = False

    def prediction(self, prediction: Prediction, event: Any, *, late: bool = False) -> None:
        """An event was scored, by its own vector; `late` where some window could not count it any more."""
        value, events = prediction.prediction, self._events
        signal = value if value.__class__ is float else signal_of(value)
        # MessagePack's encoder takes a fraction of the time that `struct` does, and writes all floats in one length. To
        # keep the numbers for later, or their prediction, would cost more: then no others are made in their memory.
        row = (float(prediction.time_ms), float(prediction.version), signal, prediction.features)
        _encode_into(row, self._rows, -1)
        events.append(event)
        if late:
            self._late += 1
        if len(events) >= GATHERED:
            self._sum_up(whole=True)

    def label(self, kind: str) -> None:
        """A label, or the end of a wait, came to this (`learning.label.Kind`)."""
        self._labels[kind] += 1

    def dead_letter(self, reason: str) -> None:
        """A record could not be used."""
        self._dead_letters[reason] += 1

    def duplicate(self) -> None:
        """An event's id was there before."""
        self._duplicates += 1

    def take(self, wall_ms: int, lag: dict[str, int] | None = None, model_lag: int = 0) -> list[Summary]:
        """What came since the last time; nothing where nothing did and nothing waits.

        Labels, dead letters, duplicates and late events are all in the last summary.

        Args:
            wall_ms: now.
            lag: records not read yet, by topic.
            model_lag: records of the training log not learned yet.
        """
        lag = lag or {}
        if self._events:
            self._sum_up(whole=False)
        counted = self._labels or self._dead_letters or self._duplicates or self._opened
        waits = any(lag.values()) or model_lag > 0
        if not self._parts and (counted or waits or self._waited):  # also that nothing waits any more
            self._parts.append(Summary(self.partition, self.worker, wall_ms))
        self._waited = waits
        made = [replace(part, wall_ms=wall_ms, lag=lag, model_lag=model_lag) for part in self._parts]
        if made:
            made[-1] = replace(
                made[-1],
                labels=dict(self._labels),
                dead_letters=dict(self._dead_letters),
                duplicates=self._duplicates,
                late=self._late,
                opened=self._opened,
            )
            self._opened = False
        self._parts = []
        self._labels, self._dead_letters = defaultdict(int), defaultdict(int)
        self._duplicates = self._late = 0
        return made

    def _sum_up(self, *, whole: bool) -> None:
        """Make summaries of all that is gathered, or of all but the last, to which more may belong."""
        head, vectors = self._numbers_gathered()
        times, versions = head[:2].astype(np.int64)
        starts = self._starts(times)
        ends = [*starts[1:], len(times)]
        if whole:
            starts, ends = starts[:-1], ends[:-1]
        n = ends[-1]
        events = self._events[:n]
        made = sketches_of_parts(self._columns(head[2, :n], vectors[:, :n], events), starts)
        for sketches, first, last in zip(made, starts, ends, strict=True):
            part = slice(first, last)
            self._parts.append(self._summary(times[part], versions[part], events[part], sketches))
        self._events, self._rows = self._events[n:], self._rows[n * self._row :]

    def _numbers_gathered(self) -> tuple[Floats, Floats]:
        """What `prediction` wrote of each event, as it lies in memory: numbers of shape (3, events), and vectors.

        Raises TypeError where a vector is none of this pipeline's.
        """
        n, width, row = len(self._events), self._width, self._row
        if len(self._rows) != n * row:
            message = f"got {len(self._rows)} bytes for {n} vectors of {width} floats, expected {row} for each"
            raise TypeError(message)
        head = np.ndarray((_HEAD, n), ">f8", self._rows, 2, (_DOUBLE, row))
        return head, np.ndarray((width, n), ">f8", self._rows, row - _DOUBLE * width + 1, (_DOUBLE, row))

    def _starts(self, times: Ints) -> list[int]:
        """Where each summary begins: at a new day, unless the last would be a small one, and where the last is full."""
        days = np.maximum.accumulate(np.append(self._day, times // self._cycle))  # the latest yet
        self._day = int(days[-1])  # a new day in what is left over has begun no summary, and will begin none
        starts = [0]
        for end in [*np.flatnonzero(days[1:] > days[:-1]).tolist(), len(times)]:
            while end - starts[-1] > MOST:
                starts.append(starts[-1] + MOST)
            if end - starts[-1] >= FEW and end < len(times):
                starts.append(end)
        return starts

    def _columns(self, signals: Floats, vectors: Floats, events: list[Any]) -> Floats:
        """All numbers that are sketched, of shape (numbers, events).

        Args:
            signals: what stands for each prediction.
            vectors: of shape (features, events).
            events: as they came.
        """
        own = 1 + len(self._own)
        columns = np.empty((own + len(self._numbers), len(events)))
        columns[0] = signals
        columns[1:own] = vectors if len(self._own) == self._width else vectors[self._own]
        for row, name in enumerate(self._numbers, own):
            columns[row] = numbers_of(list(map(attrgetter(name), events)))
        return columns

    def _summary(self, times: Ints, versions: Ints, events: list[Any], sketches: list[Sketch]) -> Summary:
        """Of these events, with a sketch for each of `_columns`."""
        tile, n, own = self._tile, len(events), 1 + len(self._own)
        found = {name: Counter(map(attrgetter(name), events)) for name in self._categories}
        features = self._features(sketches[1:own], found, n)
        numbers = {name: copy_of(features[self._copied[name]]) for name in self._fields if name in self._copied}
        numbers |= zip(self._numbers, sketches[own:], strict=True)
        starts, counts = np.unique(times // tile * tile, return_counts=True)
        return Summary(
            self.partition,
            self.worker,
            0,
            events=n,
            since_ms=int(times.min()),
            until_ms=int(times.max()),
            version=int(versions.max()),
            cohorts=dict(zip(starts.tolist(), counts.tolist(), strict=True)),
            features=features,
            prediction=sketches[0],
            numbers={name: numbers[name] for name in self._fields},
            categories={name: categories_of(counts) for name, counts in found.items()},
        )

    def _features(self, own: Sequence[Sketch], found: Mapping[str, Mapping[Any, int]], n: int) -> list[Sketch]:
        """The sketch of each number of the vector.

        Args:
            own: of those in the rows.
            found: how often each value came, by field.
            n: how many events there are.
        """
        made = dict(zip(self._own, own, strict=True))
        for field, of, places in self._indicators:
            ones = dict.fromkeys(places.values(), 0)
            for value, count in found[field].items():
                place = places.get(of(value))
                if place is not None:
                    ones[place] += count
            made |= {place: indicator(n, count) for place, count in ones.items()}
        return [made[place] for place in range(self._width)]


def signal_of(value: Value) -> float:
    """The number that stands for a prediction: probability of True, value or score, or the best class's probability."""
    return float(max(value.values(), default=0.0) if isinstance(value, dict) else value)


def _is_category(kind: Any) -> bool:
    return kind in (str, bool) or (isinstance(kind, type) and issubclass(kind, Enum))
