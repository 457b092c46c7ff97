"""The state of one entity: two flat arrays, and the tiles that its windows are made of.

A window of length W is 12 full tiles of W/12 and the running one, so it covers between W and W + W/12. A tile leaves
all at once and the totals are then summed anew: nothing is ever subtracted, so no rounding error can pile up.
Measured beside objects per window, the arrays take a third of the memory and a tenth of the time to serialise.
"""

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

FULL_TILES = 12
SLOTS = FULL_TILES + 1
LAYOUT_VERSION = 1

_HEADER = struct.Struct("<BBIHH")  # layout version, entity, layout hash, lengths of the two arrays

How = Literal["add", "min", "max", "or"]


class Profile:
    """One entity's numbers.

    Attributes:
        ints: unsigned 64-bit counts, times, tile numbers and bit maps.
        floats: doubles.
        entity: which of the feature set's entities it is.
    """

    __slots__ = ("entity", "floats", "ints")

    def __init__(self, entity: int, ints: "array[int]", floats: "array[float]") -> None:
        self.entity = entity
        self.ints = ints
        self.floats = floats

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Profile)
            and self.entity == other.entity
            and self.ints == other.ints
            and self.floats.tobytes() == other.floats.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]  # mutable


class Ring(msgspec.Struct, frozen=True):
    """One accumulator of a window: its total and a slot per tile, at fixed places of one of the arrays."""

    how: How
    in_floats: bool
    total: int
    base: int
    empty: float


class Window(msgspec.Struct, frozen=True):
    """Places of one window's state. The first ring counts events; `shifts` are the zero points of deviations."""

    tile_ms: int
    head: int
    rings: tuple[Ring, ...]


def advance(ints: "array[int]", floats: "array[float]", window: Window, tile: int) -> None:
    """Move the running tile on to `tile`: what is older than 12 tiles leaves, and the totals are made anew."""
    counts = window.rings[0]
    gone = False
    for number in range(max(ints[window.head], tile - SLOTS) + 1, tile + 1):
        slot = number % SLOTS
        if ints[counts.base + slot]:
            gone = True
            for ring in window.rings:
                (floats if ring.in_floats else ints)[ring.base + slot] = ring.empty  # type: ignore[call-overload]
    ints[window.head] = tile
    if gone:
        for ring, value in zip(window.rings, between(ints, floats, window, tile), strict=True):
            (floats if ring.in_floats else ints)[ring.total] = value


def between(ints: "array[int]", floats: "array[float]", window: Window, tile: int) -> list[Any]:
    """Each ring over the tiles from `tile - 12` to `tile`, of those that are still held, oldest first."""
    first = max(ints[window.head] - FULL_TILES, tile - FULL_TILES, 0)
    slots = [number % SLOTS for number in range(first, tile + 1)]
    return [_fold(floats if ring.in_floats else ints, ring, slots) for ring in window.rings]


def _fold(cells: Any, ring: Ring, slots: Sequence[int]) -> Any:
    """One ring's tiles made one. Not by `sum`, which compensates rounding errors from Python 3.12 on."""
    base, value = ring.base, ring.empty
    if ring.how == "add":
        for slot in slots:
            value += cells[base + slot]
        return value
    if ring.how == "or":
        for slot in slots:
            value |= cells[base + slot]
        return value
    choose = min if ring.how == "min" else max
    # Of equal numbers the oldest is taken, as comparing one after the other would.
    return choose((cells[base + slot] for slot in slots), default=value)


class Layout:
    """Hands out places in the arrays of one entity, and knows the arrays' initial values and binary form."""

    def __init__(self, entity: int) -> None:
        self.entity = entity
        self._ints: list[int] = []
        self._floats: list[float] = []
        self._parts: list[str] = []
        self._head = b""  # what a profile's binary form begins with; made when first asked for

    def ints(self, what: str, count: int = 1) -> int:
        """Reserve unsigned integers, 0 at first; the place of the first."""
        self._reserve(f"q{count} {what}")
        self._ints += [0] * count
        return len(self._ints) - count

    def floats(self, what: str, count: int = 1, first: float = 0.0) -> int:
        """Reserve doubles; the place of the first."""
        self._reserve(f"d{count} {what}")
        self._floats += [first] * count
        return len(self._floats) - count

    def _reserve(self, part: str) -> None:
        self._parts.append(part)
        self._head = b""

    def ring(self, what: str, how: How, *, in_floats: bool, empty: float = 0) -> Ring:
        """Reserve a total and its tiles."""
        base = self.floats(what, 1 + SLOTS, empty) if in_floats else self.ints(what, 1 + SLOTS)
        return Ring(how, in_floats, base, base + 1, empty)

    @property
    def sizes(self) -> tuple[int, int]:
        """Lengths of the two arrays."""
        return len(self._ints), len(self._floats)

    @property
    def hash(self) -> int:
        """32 bits that change with what stands where."""
        return zlib.crc32("\n".join(self._parts).encode())

    def new(self) -> Profile:
        """The profile of an entity that was never seen."""
        return Profile(self.entity, array("Q", self._ints), array("d", self._floats))

    def head(self) -> bytes:
        """What every profile of this layout begins with in its binary form."""
        if not self._head:
            self._head = _HEADER.pack(LAYOUT_VERSION, self.entity, self.hash, len(self._ints), len(self._floats))
        return self._head

    def dump(self, profile: Profile) -> bytes:
        """Header and both arrays, little-endian."""
        return b"".join((self.head(), _little(profile.ints).tobytes(), _little(profile.floats).tobytes()))

    def load(self, data: bytes) -> Profile:
        """The profile that was dumped. Raises ValueError for another layout.

        A recovery calls it for every key, so the header is compared as bytes, and read only to say what is wrong.
        """
        middle = _HEADER.size + 8 * len(self._ints)
        if not data.startswith(self.head()) or len(data) != middle + 8 * len(self._floats):
            raise self._misfit(data)
        ints, floats = array("Q", data[_HEADER.size : middle]), array("d", data[middle:])
        return Profile(self.entity, _little(ints), _little(floats))

    def _misfit(self, data: bytes) -> ValueError:
        """What is wrong with a profile."""
        if len(data) < _HEADER.size:
            return ValueError(f"got a profile of {len(data)} bytes, expected {_HEADER.size} at least")
        got, expected = _HEADER.unpack_from(data), _HEADER.unpack(self.head())
        whole = _HEADER.size + 8 * (len(self._ints) + len(self._floats))
        if got == expected:
            return ValueError(f"got a profile of {len(data)} bytes, expected {whole}, as its header says")
        return ValueError(
            f"got a profile with layout {got}, expected {expected}: the features were changed since it was written;"
            " give the pipeline a new name, so that it starts with fresh profiles"
        )


def entity_index(data: bytes) -> int:
    """Which entity a dumped profile is of."""
    return data[1] if len(data) > 1 else 0


def _little(cells: Any) -> Any:
    if sys.byteorder == "little":
        return cells
    swapped = array(cells.typecode, cells)
    swapped.byteswap()
    return swapped


def escaped(parts: Sequence[str]) -> str:
    """Join so that different parts never give the same text."""
    return "\x1f".join(
        part.replace("\x1e", "\x1e0").replace("\x1f", "\x1e1") if "\x1f" in part or "\x1e" in part else part
        for part in parts
    )
