"""Writes the program that `features.kernel` runs, and the Python around it: reading the event, finding its profiles."""

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from features import kernel
from features.profile import Ring

if TYPE_CHECKING:
    from features.compile import Column, Entity, WindowPlan

_HOW = {"add": kernel.ADD, "min": kernel.MIN, "max": kernel.MAX, "or": kernel.OR}
_KINDS = {
    "count": kernel.ONE,
    "sum": kernel.VALUE,
    "deviation": kernel.DEVIATION,
    "square": kernel.SQUARE,
    "minimum": kernel.LOWER,
    "maximum": kernel.HIGHER,
    "distinct": kernel.BIT,
}
_COLUMNS = {
    "count": kernel.COUNT,
    "distinct": kernel.DISTINCT,
    "total": kernel.TOTAL_OF,
    "mean": kernel.MEAN,
    "std": kernel.STD,
    "minimum": kernel.EXTREME,
    "maximum": kernel.EXTREME,
    "since_last": kernel.SINCE_LAST,
    "last": kernel.LAST,
    "ewm": kernel.EWM,
}


class Program:
    """One pipeline's program and its room to work in, so that it serves one thread at a time.

    Args:
        entities: each with its columns before the event is added, and after.
        numbers: variables of the event's numbers, in the order in which they will be given.
        bits: variables of its bits, likewise.
        width: length of the vector.
        estimates: the estimates of linear counting.
    """

    def __init__(
        self,
        entities: Sequence[tuple["Entity", Sequence["Column"], Sequence["Column"]]],
        numbers: Sequence[str],
        bits: Sequence[str],
        width: int,
        estimates: Sequence[float],
    ) -> None:
        self._numbers = {name: place for place, name in enumerate(numbers)}
        self._bits = {name: place for place, name in enumerate(bits)}
        self._totals = 0
        self._first_totals: dict[int, int] = {}  # of a window, by its identity
        body = [cell for entity in entities for cell in self._entity(*entity)]
        at_numbers = kernel.ESTIMATES + len(estimates)
        at_vector = at_numbers + len(numbers)
        at_addresses = 1 + len(bits)
        at_ints = at_addresses + 2 * len(entities)
        header = [len(entities), 1, at_addresses, at_numbers, at_vector, at_ints, at_vector + width]
        self.plan = np.array([*header, *body], dtype=np.int64)
        self.ints = np.zeros(at_ints + max(self._totals, 1), dtype=np.int64)
        self.floats = np.zeros(at_vector + width + self._totals)
        self.floats[kernel.HALF] = 0.5
        self.floats[kernel.ESTIMATES : at_numbers] = estimates
        self.vector: Callable[[], list[float]] = self.floats[at_vector : at_vector + width].tolist
        self.fill_floats = struct.Struct(f"{len(numbers)}d").pack_into
        self.at_numbers = 8 * at_numbers
        self.fill_ints = struct.Struct(f"q{len(bits) + 2 * len(entities)}Q").pack_into

    def _entity(self, entity: "Entity", before: Sequence["Column"], after: Sequence["Column"]) -> list[int]:
        n_ints, n_floats = entity.layout.sizes
        cells = [n_ints, n_floats, entity.seen, entity.newest, len(entity.windows)]
        again = {id(column.window) for column in after}
        for window in entity.windows.values():
            cells += self._window(window, again=id(window) in again)
        cells += self._listed(before)
        cells.append(len(entity.decays))
        for (variable, half_life), top in entity.decays.items():
            cells += [self._numbers[variable], half_life, top]
        cells.append(len(entity.lasts))
        for variable, place in entity.lasts.items():
            cells += [self._numbers[variable], place]
        return cells + self._listed(after)

    def _window(self, window: "WindowPlan", *, again: bool) -> list[int]:
        self._first_totals[id(window)] = first = self._totals
        self._totals += len(window.rings)
        cells = [window.tile_ms, window.head, len(window.rings), first, int(again), len(window.shifts)]
        for variable, place in window.shifts.items():
            cells += [self._numbers[variable], place]
        for what, ring, variable, shift in window.updates:
            cells += self._ring(what, ring, variable, shift)
        return cells

    def _ring(self, what: str, ring: Ring, variable: str, shift: int) -> list[int]:
        place = 0 if what == "count" else self._bits[variable] if what == "distinct" else self._numbers[variable]
        return [_HOW[ring.how], int(ring.in_floats), ring.total, ring.base, _KINDS[what], place, max(shift, 0)]

    def _listed(self, columns: Sequence["Column"]) -> list[int]:
        cells = [len(columns)]
        for column in columns:
            first = 0 if column.window is None else self._first_totals[id(column.window)]
            one, other = [first + place for place in (*column.places, 0, 0)[:2]]
            cells += [_COLUMNS[column.kind], column.place, one, other, first]
        return cells
