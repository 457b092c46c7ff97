"""What a feature is: data, made by the constructors a pipeline is written with. Compiled by `feature_set`.

A source is what a number is taken from: a field of the event by its name, or `field`, `ratio` or `function`.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from features.errors import FeatureDefinitionError

Scalar = Literal["field", "hour_of_day", "day_of_week", "ratio", "function"]
Category = Literal["one_hot", "hashed"]
Windowed = Literal["count", "total", "mean", "std", "minimum", "maximum", "distinct"]
Running = Literal["last", "since_last", "ewm"]
Kind = Scalar | Category | Windowed | Running

UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature, or one per window or category.

    Attributes:
        kind: which constructor made it.
        sources: what it is computed from: field names or other features.
        name: the user's name for it, or "".
        windows: lengths as written, for windowed features.
        by: the fields of its entity; empty for the event's own key.
        including: whether the event itself counts.
        local: whether its entity may be spread over partitions, each seeing its own part.
        categories: for one_hot.
        buckets: for hashed.
        half_life: for ewm, as written.
        call: for function.
    """

    kind: Kind
    sources: tuple["str | Feature", ...] = ()
    name: str = ""
    windows: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    including: bool = False
    local: bool = False
    categories: tuple[Any, ...] = ()
    buckets: int = 0
    half_life: str = ""
    call: Callable[[Any], float] | None = None

    @property
    def label(self) -> str:
        """Its name, the user's or one made from the definition."""
        if self.name:
            return self.name
        parts = [label_of(source) for source in self.sources]
        if self.kind == "field":
            return parts[0]
        return f"{self.kind}({','.join(parts + [self.half_life] * bool(self.half_life))}{self._suffix()})"

    def label_at(self, window: str) -> str:
        """The name of its column for one window."""
        if self.name:
            return self.name if len(self.windows) == 1 else f"{self.name}_{window}"
        return f"{self.kind}({','.join([*map(label_of, self.sources), window])}{self._suffix()})"

    def _suffix(self) -> str:
        by = f";by={'+'.join(self.by)}" if self.by else ""
        return by + (";including" if self.including else "")


Source = str | Feature


def label_of(source: Source) -> str:
    """How a source is called inside the name of a feature."""
    return source if isinstance(source, str) else source.label


def parse_window(text: object) -> int:
    """Milliseconds of a window such as "90s", "30m", "3h" or "7d". Raises FeatureDefinitionError.

    >>> parse_window("3h")
    10800000
    """
    match = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        message = f'got window {text!r}, expected a whole number and a unit: "90s", "30m", "3h" or "7d"'
        raise FeatureDefinitionError(message)
    return int(match[1]) * UNITS[match[2]]


def field(name: str) -> Feature:
    """The number in this field of the event; a bool counts as 0 or 1."""
    return Feature(kind="field", sources=(name,))


def hour_of_day(name: str, *, as_: str = "") -> Feature:
    """Hours since midnight, 0 to 24 with minutes and seconds as the fraction.

    Of a datetime field, in the UTC offset that the event gives it; of a field of milliseconds since 1970, in UTC.
    """
    return Feature(kind="hour_of_day", sources=(name,), name=as_)


def day_of_week(name: str, *, as_: str = "") -> Feature:
    """Day of the week, Monday 0 to Sunday 6; the day in the offset that `hour_of_day` uses."""
    return Feature(kind="day_of_week", sources=(name,), name=as_)


def one_hot(name: str, *categories: Any) -> Feature:
    """One feature per category: 1 where the field has it. A value that is not listed is 0 everywhere.

    The categories may be left out where the field's type lists them: a bool, an Enum or a Literal.
    """
    return Feature(kind="one_hot", sources=(name,), categories=categories)


def hashed(name: str, buckets: int) -> Feature:
    """One feature per bucket: 1 in the bucket that the CRC-32 of the field's text falls into."""
    return Feature(kind="hashed", sources=(name,), buckets=buckets)


def ratio(a: Source, b: Source, *, name: str = "") -> Feature:
    """The first divided by the second; 0 where the second is 0."""
    return Feature(kind="ratio", sources=(a, b), name=name)


def function(name: str, call: Callable[[Any], float]) -> Feature:
    """Any number that Python can compute from the event. Must depend on nothing else, or replays will differ."""
    return Feature(kind="function", name=name, call=call)


def _windowed(  # noqa: PLR0917  # private; one call per constructor below
    kind: Windowed,
    sources: tuple[Source, ...],
    windows: tuple[str, ...],
    by: str | tuple[str, ...],
    including: bool,
    local: bool,
    name: str,
) -> Feature:
    return Feature(
        kind=kind,
        sources=sources,
        windows=windows,
        by=entity_of(by),
        including=including,
        local=local,
        name=name,
    )


def entity_of(by: "str | tuple[str, ...]") -> tuple[str, ...]:
    """The fields of an entity as a tuple."""
    return (by,) * bool(by) if isinstance(by, str) else tuple(by)


def count(
    *windows: str, by: str | tuple[str, ...] = (), including: bool = False, local: bool = False, name: str = ""
) -> Feature:
    """How many events of the entity are in each window."""
    return _windowed("count", (), windows, by, including, local, name)


def total(
    source: Source,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Sum of the source over each window; 0 when empty."""
    return _windowed("total", (source,), windows, by, including, local, name)


def mean(
    source: Source,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Arithmetic mean of the source over each window; 0 when empty."""
    return _windowed("mean", (source,), windows, by, including, local, name)


def std(
    source: Source,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Population standard deviation of the source over each window; 0 for fewer than two events.

    From sums of the deviations from the first value the window saw after it was last empty (shifted data, as in
    Chan, Golub and LeVeque, The American Statistician 37(3), 1983), which keeps the digits that plain sums lose.
    """
    return _windowed("std", (source,), windows, by, including, local, name)


def minimum(
    source: Source,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Smallest value of the source in each window; 0 when empty."""
    return _windowed("minimum", (source,), windows, by, including, local, name)


def maximum(
    source: Source,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Largest value of the source in each window; 0 when empty."""
    return _windowed("maximum", (source,), windows, by, including, local, name)


def distinct(
    field: str,
    *windows: str,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """About how many different values of the field are in each window.

    Linear counting over 64 bits (Whang, Vander-Zanden and Taylor, ACM TODS 15(2), 1990): within about 5 % up to 20
    values, 10 % up to 60, and never above 267.
    """
    return _windowed("distinct", (field,), windows, by, including, local, name)


def last(source: Source, *, by: str | tuple[str, ...] = (), local: bool = False, name: str = "") -> Feature:
    """The source at the entity's newest event before this one; 0 at its first."""
    return Feature(kind="last", sources=(source,), by=entity_of(by), local=local, name=name)


def since_last(*, by: str | tuple[str, ...] = (), local: bool = False, name: str = "") -> Feature:
    """Seconds since the entity's newest event; 0 at its first, and for an event older than that one."""
    return Feature(kind="since_last", by=entity_of(by), local=local, name=name)


def ewm(
    source: Source,
    half_life: str,
    *,
    by: str | tuple[str, ...] = (),
    including: bool = False,
    local: bool = False,
    name: str = "",
) -> Feature:
    """Mean of the source, each event weighted by 0.5 ** (its age / half_life); 0 when empty.

    Late events get the weight of their age, so their order of arrival makes no difference beyond rounding.
    """
    return Feature(
        kind="ewm",
        sources=(source,),
        half_life=half_life,
        by=entity_of(by),
        including=including,
        local=local,
        name=name,
    )
