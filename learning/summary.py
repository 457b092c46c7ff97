"""What one unit tells about what went through it: gathered per event, summed up a thousand at a time.

    score, label --call per record--> Collector --take, at each cut of the unit--> Summary records

Per event it only keeps a reference; everything is binned column by column when a thousand are there or the unit is cut.
"""

from collections import Counter
from enum import Enum
from struct import Struct
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import astuple, replace

from learning.records import Prediction, Value
from learning.reports import Summary
from learning.sketch import categories, numbers_of, sketches
from pipelines.streams import annotations_of, kinds_of

if TYPE_CHECKING:
    from pipelines.definition import Pipeline

MOST = 1_000
"""Events that one summary is about at most."""
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
        self._width = len(pipeline.feature_set.names)
        fields = Fields(pipeline)
        places = {name: place for place, name in enumerate(pipeline.events.struct.__struct_fields__)}
        self._numbers = [(name, places[name]) for name in fields.numbers]
        self._categories = [(name, places[name]) for name in fields.categories]
        self._opened = True
        self._predictions: list[Prediction] = []
        self._events: list[Any] = []
        self._day_ends = 0
        self._parts: list[Summary] = []
        self._labels: Counter[str] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._duplicates = 0
        self._late = 0
        self._waited = False

    def prediction(self, prediction: Prediction, event: Any, *, late: bool = False) -> None:
        """An event was scored; `late` where some window could not count it any more."""
        time_ms, gathered = prediction.time_ms, len(self._events)
        if gathered >= MOST or (time_ms >= self._day_ends and gathered >= FEW):
            self._sum_up()
        if time_ms >= self._day_ends:
            self._day_ends = (time_ms // self._cycle + 1) * self._cycle
        self._predictions.append(prediction)
        self._events.append(event)
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
        self._labels, self._dead_letters = Counter(), Counter()
        self._duplicates = self._late = 0
        return made

    def _sum_up(self) -> None:
        predictions, events = self._predictions, self._events
        self._predictions, self._events = [], []
        times = [prediction.time_ms for prediction in predictions]
        tile = self._tile
        tiles = Counter([time_ms // tile for time_ms in times])
        fields = list(zip(*map(astuple, events), strict=True))
        pack, n = Struct(f"{self._width}d").pack, len(events)  # a third of what NumPy takes to read lists of lists
        vectors = np.frombuffer(b"".join([pack(*prediction.features) for prediction in predictions]), dtype=np.float64)
        columns = np.vstack(
            [
                vectors.reshape(n, self._width).T,
                np.array([signal_of(prediction.prediction) for prediction in predictions], dtype=np.float64),
                *(numbers_of(fields[place]) for _, place in self._numbers),
            ]
        )
        made = sketches(columns.T)
        width = self._width
        self._parts.append(
            Summary(
                self.partition,
                self.worker,
                0,
                events=n,
                since_ms=min(times),
                until_ms=max(times),
                version=max([prediction.version for prediction in predictions]),
                cohorts={number * tile: tiles[number] for number in sorted(tiles)},
                features=made[:width],
                prediction=made[width],
                numbers=dict(zip((name for name, _ in self._numbers), made[width + 1 :], strict=True)),
                categories={name: categories(fields[place]) for name, place in self._categories},
            )
        )


def signal_of(value: Value) -> float:
    """The number that stands for a prediction: probability of True, value or score, or the best class's probability."""
    return max(value.values(), default=0.0) if isinstance(value, dict) else value


def _is_category(kind: Any) -> bool:
    return kind in (str, bool) or (isinstance(kind, type) and issubclass(kind, Enum))
