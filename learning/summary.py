"""What one unit tells about what went through it: gathered per event, summed up some thousands at a time.

    score, label --call per record--> Collector --take, at each cut of the unit--> Summary records

Per event it only packs numbers into a row, while they are at hand. When some thousands are there or the unit is cut,
all rows are binned at once, column by column, however many summaries they make: so what NumPy costs a call is shared by
many events. What follows from something else is not packed: the columns of the vector that only say which value a field
has follow from how often each value came, and a field's number that is in the vector is there already.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from operator import attrgetter, itemgetter
from struct import Struct
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from learning.records import Prediction, Value
from learning.reports import Sketch, Summary
from learning.sketch import categories_of, copy_of, indicator, numbers_of, sketches_of_parts
from pipelines.streams import annotations_of, kinds_of

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

MOST = 1_000
"""Events that one summary is about at most."""
GATHERED = 4 * MOST
"""Events that are kept at most until they are summed up."""
FEW = 100
"""Events from which on a summary ends where another day of event time begins, so that windows are whole days."""
DAY_MS = 86_400_000


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
        self._pack = Struct(f"<qqd{len(self._own)}d").pack_into
        self._of = _getter(self._own, self._width)
        row = np.dtype([("time_ms", "<i8"), ("version", "<i8"), ("numbers", "<f8", (1 + len(self._own),))])
        self._rows: Any = np.empty(GATHERED, dtype=row)  # one for each of the events
        self._size = row.itemsize
        self._events: list[Any] = []
        self._day_ends = 0
        self._starts = [0]
        self._full_at = MOST
        self._parts: list[Summary] = []
        self._labels: defaultdict[str, int] = defaultdict(int)  # a Counter takes twice as long to count one
        self._dead_letters: defaultdict[str, int] = defaultdict(int)
        self._duplicates = 0
        self._late = 0
        self._waited = False

    def prediction(self, prediction: Prediction, event: Any, *, late: bool = False) -> None:
        """An event was scored, by its own vector; `late` where some window could not count it any more."""
        time_ms, events = prediction.time_ms, self._events
        if time_ms >= self._day_ends or len(events) >= self._full_at:
            self._turn(time_ms, len(events))
            events = self._events
        value, at = prediction.prediction, len(events) * self._size
        signal = value if value.__class__ is float else signal_of(value)
        self._pack(self._rows, at, time_ms, prediction.version, signal, *self._of(prediction.features))
        events.append(event)
        if late:
            self._late += 1

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
            self._sum_up()
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

    def _turn(self, time_ms: int, gathered: int) -> None:
        """Before an event of a new day, or after so many: end the summary, unless it would be a small one."""
        if gathered - self._starts[-1] >= (MOST if time_ms < self._day_ends else FEW):
            if gathered > GATHERED - MOST:  # there is no room for another whole one
                self._sum_up()
            else:
                self._starts.append(gathered)
            self._full_at = self._starts[-1] + MOST
        if time_ms >= self._day_ends:
            self._day_ends = (time_ms // self._cycle + 1) * self._cycle

    def _sum_up(self) -> None:
        """Make summaries of all that is gathered."""
        events, starts = self._events, self._starts
        rows = self._rows[: len(events)]
        self._events, self._starts, self._full_at = [], [0], MOST
        made = sketches_of_parts(self._columns(rows["numbers"], events), starts)
        for sketches, first, last in zip(made, starts, (*starts[1:], len(rows)), strict=True):
            self._parts.append(self._summary(rows[first:last], events[first:last], sketches))

    def _columns(self, numbers: npt.NDArray[np.float64], events: list[Any]) -> npt.NDArray[np.float64]:
        """All numbers that are sketched, of shape (numbers, events): the rows', and the events' own.

        Args:
            numbers: of shape (events, numbers).
            events: as they came.
        """
        n, width = numbers.shape
        columns = np.empty((width + len(self._numbers), n))
        columns[:width] = numbers.T
        for row, name in enumerate(self._numbers, width):
            columns[row] = numbers_of(list(map(attrgetter(name), events)))
        return columns

    def _summary(self, rows: npt.NDArray[np.void], events: list[Any], sketches: list[Sketch]) -> Summary:
        """Of these events, with a sketch for each of `_columns`."""
        tile, times, n, own = self._tile, rows["time_ms"], len(rows), 1 + len(self._own)
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
            version=int(rows["version"].max()),
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
    return max(value.values(), default=0.0) if isinstance(value, dict) else value


def _getter(places: Sequence[int], width: int) -> Callable[[list[float]], Iterable[float]]:
    """What takes the numbers at these places out of a vector of this width."""
    if len(places) == width:
        return iter
    if len(places) > 1:
        return itemgetter(*places)
    return lambda vector: [vector[place] for place in places]


def _is_category(kind: Any) -> bool:
    return kind in (str, bool) or (isinstance(kind, type) and issubclass(kind, Enum))
