"""Quality by event time in fixed memory: over the last span, and over predictions old enough to have their label.

A quick label comes before a slow one, so of the newest events only those with quick labels are known, and these may be
unlike the rest: flights that land early are not late. Measures over events whose horizon has passed have no such bias.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from learning.quality import Points, Tally

SPAN_TILES = 12  # full ones beside the running one, as in windows of features
HORIZON_TILES = 24
# Cohorts past their horizon whose labels are still told. `learning.survey` counts predictions of four horizons, by a
# clock of events alone, which that of events and labels here may be a horizon ahead of.
KEPT_TILES = 4 * HORIZON_TILES

MakeTally = Callable[[], Tally]


def cohort_ms(horizon_ms: int) -> int:
    """Width of a cohort, the events of one tile of time: a 24th of the horizon, at least a millisecond.

    >>> cohort_ms(86_400_000), cohort_ms(10)
    (3600000, 1)
    """
    return max(horizon_ms // HORIZON_TILES, 1)


class SpanTally:
    """Predictions whose event lies in the last span: 12 full tiles of a twelfth and the running one.

    The newest event ends the span. So it reaches back between the span and a twelfth more, and a tile leaves all at
    once. Examples of older events are passed over.
    """

    def __init__(self, make: MakeTally, span_ms: int) -> None:
        self._make = make
        self._tile_ms = -(-span_ms // SPAN_TILES)
        self._newest: int | None = None
        self._tiles: dict[int, Tally] = {}

    def take_all(self, times_ms: npt.NDArray[np.int64], points: Points) -> None:
        """Take the predictions of events of these times, one at least."""
        tiles = times_ms // self._tile_ms
        newest = int(tiles.max())
        if self._newest is None or newest > self._newest:
            self._newest = newest
        first = self._newest - SPAN_TILES
        self._tiles = {tile: tally for tile, tally in self._tiles.items() if tile >= first}
        inside = np.flatnonzero(tiles >= first)
        if len(inside) < len(tiles):
            tiles, points = tiles[inside], points.only(inside)
        names, groups = np.unique(tiles, return_inverse=True)
        points.to_groups([_tally_of(self._tiles, tile, self._make) for tile in names.tolist()], groups)

    def tally(self) -> Tally:
        """All of the span."""
        return _total(self._make, self._tiles)

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers."""
        return {"newest": self._newest, "tiles": _states(self._tiles)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._newest = state["newest"]
        self._tiles = _restored(self._make, state["tiles"])


class Cohorts:
    """Predictions by the age of their event: what is known of those whose horizon has passed.

    The clock is the latest event or label time so far. A cohort is mature when the horizon of its last event has
    passed; it is then added to `mature`, and so is what the log has of it later. Where the horizon is a multiple of 24
    ms, 25 cohorts at most are not; else a few more.

    Attributes:
        mature: all predictions of mature cohorts.
    """

    def __init__(self, make: MakeTally, horizon_ms: int) -> None:
        self.mature = make()
        self._make = make
        self._horizon = horizon_ms
        self._tile_ms = cohort_ms(horizon_ms)
        self._clock: int | None = None
        self._first = 0  # the first cohort that is not mature
        self._open: dict[int, Tally] = {}
        self._labels: dict[int, int] = {}

    def take_all(
        self,
        times_ms: npt.NDArray[np.int64],
        label_times_ms: npt.NDArray[np.int64],
        labelled: npt.NDArray[np.bool_],
        points: Points,
    ) -> None:
        """Take predictions with their outcomes, one at least, and whether each came as a label or for want of one."""
        self._advance(int(np.maximum(times_ms, label_times_ms).max()))
        tiles = times_ms // self._tile_ms
        names, groups = np.unique(np.maximum(tiles, self._first - 1), return_inverse=True)
        points.to_groups([self._of(tile) for tile in names.tolist()], groups)
        for tile, n in _counts(tiles[labelled]):
            if tile >= self._first - KEPT_TILES:
                self._labels[tile] = self._labels.get(tile, 0) + n

    def _of(self, tile: int) -> Tally:
        return self.mature if tile < self._first else _tally_of(self._open, tile, self._make)

    def _advance(self, latest: int) -> None:
        self._clock = latest if self._clock is None else max(self._clock, latest)
        self._first = (self._clock - self._horizon) // self._tile_ms
        for tile in sorted(tile for tile in self._open if tile < self._first):
            self.mature.merge(self._open.pop(tile))
        self._labels = {tile: n for tile, n in self._labels.items() if tile >= self._first - KEPT_TILES}

    def labelled(self) -> dict[int, int]:
        """How many predictions of each cohort got a label so far, by the start of the cohort in ms.

        Of the cohorts that are not mature and of the last 96 that are; of the older ones nothing is said.
        """
        return {tile * self._tile_ms: n for tile, n in sorted(self._labels.items())}

    def state(self) -> dict[str, Any]:
        """Everything in it, in plain containers."""
        return {
            "clock": self._clock,
            "first": self._first,
            "mature": self.mature.state(),
            "open": _states(self._open),
            "labels": dict(self._labels),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        self._clock, self._first = state["clock"], state["first"]
        self.mature.restore(state["mature"])
        self._open = _restored(self._make, state["open"])
        self._labels = dict(state["labels"])


def _counts(tiles: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    names, counts = np.unique(tiles, return_counts=True)
    return list(zip(names.tolist(), counts.tolist(), strict=True))


def _tally_of(tiles: dict[int, Tally], tile: int, make: MakeTally) -> Tally:
    tally = tiles.get(tile)
    if tally is None:
        tally = tiles[tile] = make()
    return tally


def _total(make: MakeTally, tiles: Mapping[int, Tally]) -> Tally:
    total = make()
    for tile in sorted(tiles):
        total.merge(tiles[tile])
    return total


def _states(tiles: Mapping[int, Tally]) -> dict[int, Any]:
    return {tile: tally.state() for tile, tally in tiles.items()}


def _restored(make: MakeTally, states: Mapping[int, Any]) -> dict[int, Tally]:
    tiles = {}
    for tile, state in states.items():
        tiles[tile] = make()
        tiles[tile].restore(state)
    return tiles
