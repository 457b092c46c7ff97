"""Compiles feature definitions into one Python function from event to vector.

Generated code, because it is the hottest part of the path: closures over window objects took 25 us for 32 features
where the straight-line code over flat arrays takes 14. `FeatureSet.code` shows what was generated.

The function evaluates every source first, so that a failing one leaves no trace, then for each entity: brings its
windows up to the event's time, reads the columns that exclude the event, adds the event, reads those that include it.
"""

import enum
import math
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from features.definition import Feature, Source, label_of, parse_window
from features.errors import FeatureError
from features.profile import FULL_TILES, SLOTS, Layout, Ring, Window, advance, between, escaped

LIMIT = 1e100  # squares and sums of any number of values stay finite
MAX_VALUE = 1_000  # characters
_DAY_MS = 86_400_000

# Estimate of linear counting by the number of bits set; a full map is counted as one bit short of full.
DISTINCT = tuple(-64.0 * math.log((64 - min(bits, 63)) / 64) + 0.0 for bits in range(65))


class Entity:
    """What one entity's arrays hold; the compiler's notebook."""

    def __init__(self, index: int, by: tuple[str, ...]) -> None:
        self.by = by
        self.layout = Layout(index)
        self.seen = self.layout.ints("seen")
        self.newest = self.layout.ints("newest")
        self.windows: dict[int, WindowPlan] = {}  # by length in ms
        self.lasts: dict[str, int] = {}  # variable -> place
        self.decays: dict[tuple[str, int], int] = {}  # variable, half-life -> place of the sum; the weight follows

    def window(self, text: str) -> "WindowPlan":
        """The plan of this window, made when first asked for. "60m" and "1h" are one window."""
        length = parse_window(text)
        if length not in self.windows:
            self.windows[length] = WindowPlan(self.layout, length, len(self.windows))
        return self.windows[length]


class Column(NamedTuple):
    """One number of the vector.

    Attributes:
        place: where in the vector.
        expression: what it is in Python.
        kind: what it is made of, as the feature's kind; "" where it is of the event alone.
        window: its window.
        places: rings of the window; without a window, cells of the profile.
    """

    place: int
    expression: str
    kind: str = ""
    window: "WindowPlan | None" = None
    places: tuple[int, ...] = ()


class Indicators(NamedTuple):
    """Columns that follow from one field: that of its value is 1.0, the others are 0.0.

    Attributes:
        field: of the event.
        of: what stands for a value.
        places: where in the vector each column is, by what stands for its values; there may be values without one.
    """

    field: str
    of: Callable[[Any], Any]
    places: Mapping[Any, int]


class WindowPlan:
    """What one window's arrays hold."""

    def __init__(self, layout: Layout, length: int, number: int) -> None:
        self.number = number
        self.tile_ms = -(-length // FULL_TILES)
        self._layout = layout
        self._what = f"w{length}"
        self.head = layout.ints(f"{self._what} head")
        self.rings: list[Ring] = []
        self.updates: list[tuple[str, Ring, str, int]] = []  # what, ring, variable, shift place
        self._known: dict[tuple[str, str], int] = {}
        self.shifts: dict[str, int] = {}  # variable -> place of its zero point
        self.ring("count", "", "")

    def ring(self, what: str, label: str, variable: str) -> int:
        """Index of an accumulator, added when first asked for."""
        if (what, variable) in self._known:
            return self._known[what, variable]
        text = f"{self._what} {what} {label}"
        layout = self._layout
        shift = -1
        if what in ("count", "distinct"):
            ring = layout.ring(text, "or" if what == "distinct" else "add", in_floats=False)
        elif what == "minimum":
            ring = layout.ring(text, "min", in_floats=True, empty=math.inf)
        elif what == "maximum":
            ring = layout.ring(text, "max", in_floats=True, empty=-math.inf)
        else:
            ring = layout.ring(text, "add", in_floats=True, empty=0.0)
        if what in ("deviation", "square"):
            if variable not in self.shifts:
                self.shifts[variable] = layout.floats(f"{self._what} shift {label}")
            shift = self.shifts[variable]
        self._known[what, variable] = len(self.rings)
        self.rings.append(ring)
        self.updates.append((what, ring, variable, shift))
        return len(self.rings) - 1

    def plan(self) -> Window:
        """The finished plan."""
        return Window(self.tile_ms, self.head, tuple(self.rings))


class Compiler:
    """Collects sources and entities, then writes and compiles the function."""

    def __init__(self, features: tuple[Feature, ...], key: str) -> None:
        self._key = key
        self._globals: dict[str, Any] = {
            "advance": advance,
            "between": between,
            "escaped": escaped,
            "DISTINCT": DISTINCT,
            "text_of": text_of,
            "value_of": value_of,
            "bit_of": bit_of,
            "bucket_of": bucket_of,
            "hour_of": hour_of,
            "day_of": day_of,
            "spread": spread,
        }
        self._numbers: dict[str, str] = {}  # variable -> expression
        self._labels: dict[str, str] = {}  # variable -> what a person calls it
        self._known: dict[str, str] = {}  # expression -> variable
        self._others: dict[str, str] = {}
        self._calls: dict[int, str] = {}
        self.entities: dict[tuple[str, ...], Entity] = {}
        self._before: dict[tuple[str, ...], list[Column]] = {}
        self._after: dict[tuple[str, ...], list[Column]] = {}
        self.choices: list[tuple[str, Indicators]] = []  # the variable of a field's value, and its columns
        self.names: list[str] = []
        self.copied: dict[str, int] = {}  # field -> the column that is its number
        for feature in features:
            self._add(feature)
        self.source = self._write()
        exec(compile(self.source, "<features>", "exec"), self._globals)
        self.compute: Callable[..., tuple[list[float], bool]] = self._globals["compute"]

    # -- collecting

    def _global(self, prefix: str, value: Any) -> str:
        name = f"{prefix}{len(self._globals)}"
        self._globals[name] = value
        return name

    def _variable(self, expression: str, label: str, *, number: bool = True) -> str:
        if expression in self._known:
            return self._known[expression]
        target = self._numbers if number else self._others
        name = f"{'x' if number else 'y'}{len(target)}"
        target[name] = expression
        self._labels[name] = label
        self._known[expression] = name
        return name

    def _number(self, source: Source) -> str:
        """The variable of a scalar source."""
        feature = Feature(kind="field", sources=(source,)) if isinstance(source, str) else source
        label = feature.label
        if feature.kind == "ratio":
            a, b = (self._number(s) for s in feature.sources)
            return self._variable(f"({a} / {b} if {b} else 0.0)", label)
        if feature.kind == "function":
            if id(feature.call) not in self._calls:
                self._calls[id(feature.call)] = self._global("call", feature.call)
            call = self._calls[id(feature.call)]
            return self._variable(f"float({call}(event) + 0.0)", label)
        field = feature.sources[0]
        form = {"field": "float({} + 0.0)", "hour_of_day": "hour_of({})", "day_of_week": "day_of({})"}[feature.kind]
        return self._variable(form.format(f"event.{field}"), label)

    def _column(self, name: str, expression: str) -> None:
        """A number of the event alone."""
        self._before.setdefault(("",), []).append(Column(len(self.names), expression))
        self.names.append(name)

    def _entity_column(
        self, feature: Feature, name: str, expression: str, window: WindowPlan | None, places: tuple[int, ...]
    ) -> None:
        """A number of a profile."""
        where = self._after if feature.including else self._before
        column = Column(len(self.names), expression, feature.kind, window, places)
        where.setdefault(self._entity(feature.by).by, []).append(column)
        self.names.append(name)

    def _entity(self, by: tuple[str, ...]) -> Entity:
        by = () if by == (self._key,) else by
        if by not in self.entities:
            self.entities[by] = Entity(len(self.entities), by)
            for name in by:
                self._variable(entity_value(name), name, number=False)
        return self.entities[by]

    def _add(self, feature: Feature) -> None:
        if feature.kind in ("field", "hour_of_day", "day_of_week", "ratio", "function"):
            if feature.kind == "field":
                self.copied[str(feature.sources[0])] = len(self.names)
            self._column(feature.label, self._number(feature))
        elif feature.kind in ("one_hot", "hashed"):
            self._add_categories(feature)
        elif feature.kind in ("last", "since_last", "ewm"):
            self._add_running(feature)
        else:
            for window in feature.windows:
                self._add_windowed(feature, window)

    def _add_categories(self, feature: Feature) -> None:
        field = str(feature.sources[0])
        if feature.kind == "hashed":
            expression = f"bucket_of(event.{field}, {feature.buckets})"
            of: Callable[[Any], Any] = partial(bucket_of, buckets=feature.buckets)
            values: list[Any] = list(range(feature.buckets))
        else:
            expression, of = f"text_of(event.{field})", text_of
            values = [text_of(category) for category in feature.categories]
        variable = self._variable(expression, field, number=False)
        places = {value: place for place, value in enumerate(values, len(self.names))}
        self.choices.append((variable, Indicators(field, of, places)))
        self.names += [f"{feature.kind}({field}={value})" for value in values]

    def _add_running(self, feature: Feature) -> None:
        entity = self._entity(feature.by)
        if feature.kind == "since_last":
            gap = "((t - newest) / 1000.0 if seen and t > newest else 0.0)"
            self._entity_column(feature, feature.label, gap, None, ())
            return
        source = feature.sources[0]
        label, variable = label_of(source), self._number(source)
        if feature.kind == "last":
            if variable not in entity.lasts:
                entity.lasts[variable] = entity.layout.floats(f"last {label}")
            place = entity.lasts[variable]
            self._entity_column(feature, feature.label, f"d[{place}]", None, (place,))
            return
        half_life = parse_window(feature.half_life)
        if (variable, half_life) not in entity.decays:
            places = entity.layout.floats(f"decayed sum and weight {half_life} {label}", 2)
            entity.decays[variable, half_life] = places
        top = entity.decays[variable, half_life]
        bottom = top + 1
        expression = f"(d[{top}] / d[{bottom}] if d[{bottom}] else 0.0)"
        self._entity_column(feature, feature.label, expression, None, (top, bottom))

    def _add_windowed(self, feature: Feature, window: str) -> None:
        plan = self._entity(feature.by).window(window)
        source = feature.sources[0] if feature.sources else ""
        label = label_of(source)
        prefix = f"{'b' if feature.including else 'a'}{plan.number}_"
        n = f"{prefix}0"

        places: list[int] = []

        def ring(what: str, variable: str) -> str:
            places.append(plan.ring(what, label, variable))
            return f"{prefix}{places[-1]}"

        if feature.kind == "count":
            expression = f"float({n})"
        elif feature.kind == "distinct":
            bit = self._variable(f"bit_of(event.{source})", str(source), number=False)
            expression = f"DISTINCT[{ring('distinct', bit)}.bit_count()]"
        else:
            variable = self._number(source)
            if feature.kind == "total":
                expression = ring("sum", variable)
            elif feature.kind == "mean":
                expression = f"({ring('sum', variable)} / {n} if {n} else 0.0)"
            elif feature.kind == "std":
                expression = f"spread({n}, {ring('deviation', variable)}, {ring('square', variable)})"
            else:
                expression = f"({ring(feature.kind, variable)} if {n} else 0.0)"
        self._entity_column(feature, feature.label_at(window), expression, plan, tuple(places))

    # -- writing

    def faster(self) -> Callable[..., tuple[list[float], bool]]:
        """The same function with `features.kernel` at its heart, which must be there; slow to make, once."""
        from features.kernel import loop  # noqa: PLC0415  # imports numba, which is optional
        from features.program import Program  # noqa: PLC0415

        every = [(e, self._before.get(e.by, []), self._after.get(e.by, [])) for e in self.entities.values()]
        if not every:
            return self.compute
        updates = [update for e, _, _ in every for window in e.windows.values() for update in window.updates]
        bits = list(dict.fromkeys(variable for what, _, variable, _ in updates if what == "distinct"))
        program = Program(every, list(self._numbers), bits, len(self.names), DISTINCT)
        code = self._write_faster(bits)
        scope = {**self._globals, **vars(program), "step": loop(), "misfit": _misfit}
        exec(compile(code, "<features, compiled>", "exec"), scope)
        faster: Callable[..., tuple[list[float], bool]] = scope["compute"]
        return faster

    def _write_faster(self, bits: list[str]) -> str:
        lines = ["def compute(event, key, t, profiles):", *self._write_sources()]
        addresses = []
        for number, entity in enumerate(self.entities.values()):
            n_ints, n_floats = entity.layout.sizes
            q, d = f"p{number}.ints", f"p{number}.floats"
            lines += [
                f"    k{number} = {self._entity_key(entity.by)}",
                f"    p{number} = profiles.get(k{number})",
                f"    if p{number} is None:",
                f"        p{number} = {self._global('new', entity.layout.new)}()",
                f"    elif len({q}) != {n_ints} or len({d}) != {n_floats}:",
                f"        raise misfit(k{number})",  # its addresses must not be written to
            ]
            addresses += [f"{q}.buffer_info()[0]", f"{d}.buffer_info()[0]"]
        if self._numbers:
            lines.append(f"    fill_floats(floats, at_numbers, {', '.join(self._numbers)})")
        lines += [
            f"    fill_ints(ints, 0, {', '.join(['t', *bits, *addresses])})",
            "    late = step(plan, floats, ints)",
            "    v = vector()",
            *self._write_zeros(),
            *self._write_own(),
            *[f"    profiles[k{number}] = p{number}" for number in range(len(self.entities))],
        ]
        return "\n".join([*lines, "    return v, late", ""])

    def _write(self) -> str:
        lines = ["def compute(event, key, t, profiles):"]
        lines += self._write_sources()
        lines += ["    late = False", f"    v = [0.0] * {len(self.names)}"]
        lines += self._write_own()
        for entity in self.entities.values():
            lines += self._write_entity(entity)
        return "\n".join([*lines, "    return v, late", ""])

    def _write_sources(self) -> list[str]:
        lines = ["    try:"]
        # In order of definition: a ratio comes after its parts.
        every = {**self._others, **self._numbers}
        lines += [f"        {name} = {expression}" for name, expression in every.items()] or ["        pass"]
        lines += ["    except Exception as error:", "        raise failed(event, error) from error"]
        if self._numbers:
            usable = " and ".join(f"-{LIMIT!r} <= {name} <= {LIMIT!r}" for name in self._numbers)
            numbers = "".join(f"{name}, " for name in self._numbers)
            lines += [f"    if not ({usable}):", f"        raise unusable(({numbers}))"]
        self._globals["failed"] = self._failed
        self._globals["unusable"] = self._unusable
        return lines

    def _failed(self, event: Any, error: Exception) -> FeatureError:
        """Name the source that raised, by evaluating them one by one; only after a failure."""
        scope = {**self._globals, "event": event}
        for name, expression in {**self._others, **self._numbers}.items():
            try:
                scope[name] = eval(expression, scope)
            except Exception as again:  # noqa: BLE001  # user code
                return FeatureError(self._labels[name], f"raised {type(again).__name__}: {again}")
        return FeatureError("?", f"raised {type(error).__name__}: {error}, and did not when asked again")

    def _unusable(self, values: tuple[float, ...]) -> FeatureError:
        for name, value in zip(self._numbers, values, strict=True):
            if not -LIMIT <= value <= LIMIT:
                return FeatureError(self._labels[name], f"got {value!r}, expected a number within +-{LIMIT:g}")
        raise AssertionError(values)

    def _write_zeros(self) -> list[str]:
        """One zero in all columns of choices, in place of as many objects, which would be made and kept for nothing."""
        lines = []
        for _, indicators in self.choices:
            first = min(indicators.places.values(), default=0)
            zeros = self._global("ZEROS", (0.0,) * len(indicators.places))
            lines.append(f"    v[{first}:{first + len(indicators.places)}] = {zeros}")
        return lines

    def _write_own(self) -> list[str]:
        """The columns of the event alone, over a vector of zeros."""
        lines = self._write_columns(self._before.get(("",), []), 4)
        for variable, indicators in self.choices:
            lines += [
                f"    i = {self._global('PLACES', indicators.places)}.get({variable})",
                "    if i is not None:",
                "        v[i] = 1.0",
            ]
        return lines

    def _write_columns(self, columns: list[Column], indent: int) -> list[str]:
        return [f"{' ' * indent}v[{column.place}] = {column.expression}" for column in columns]

    def _write_entity(self, entity: Entity) -> list[str]:
        key = self._entity_key(entity.by)
        new = self._global("new", entity.layout.new)
        lines = [
            f"    k = {key}",
            "    p = profiles.get(k)",
            "    if p is None:",
            f"        p = {new}()",
            "    q = p.ints",
            "    d = p.floats",
            f"    seen = q[{entity.seen}]",
            f"    newest = q[{entity.newest}]",
        ]
        for window in entity.windows.values():
            lines += self._write_read(window, "a")
        lines += self._write_columns(self._before.get(entity.by, []), 4)
        lines += self._write_running(entity)
        for window in entity.windows.values():
            lines += self._write_update(window)
        after = self._after.get(entity.by, [])
        if after:
            for window in entity.windows.values():
                if any(column.window is window for column in after):
                    lines += self._write_read(window, "b")
            lines += self._write_columns(after, 4)
        return [*lines, "    profiles[k] = p"]

    def _entity_key(self, by: tuple[str, ...]) -> str:
        """The expression of a profile's key: the event's key, or the entity's fields and their values."""
        if not by:
            return "key if '\\x1f' not in key else '\\x1f' + key"
        values = ", ".join("key" if name == self._key else self._known[entity_value(name)] for name in by)
        return f"escaped(({'+'.join(by)!r}, {values}))"

    def _write_read(self, window: WindowPlan, prefix: str) -> list[str]:
        """Bring the totals up to date and read them; an event older than the running tile folds its own tiles."""
        n = window.number
        plan = self._global("W", window.plan())
        names = [f"{prefix}{n}_{i}" for i in range(len(window.rings))]
        totals = [f"{'d' if r.in_floats else 'q'}[{r.total}]" for r in window.rings]
        return [
            f"    c{n} = t // {window.tile_ms}",
            f"    if c{n} > q[{window.head}]:",
            f"        advance(q, d, {plan}, c{n})",
            f"    if c{n} == q[{window.head}]:",
            *(f"        {name} = {total}" for name, total in zip(names, totals, strict=True)),
            "    else:",
            f"        [{', '.join(names)}] = between(q, d, {plan}, c{n})",
        ]

    def _write_running(self, entity: Entity) -> list[str]:
        lines = [f"    q[{entity.seen}] = seen + 1", "    if not seen or t >= newest:"]
        for (variable, half_life), top in entity.decays.items():
            lines += [
                f"        w = 0.5 ** ((t - newest) / {half_life}.0) if seen else 0.0",
                f"        d[{top}] = d[{top}] * w + {variable}",
                f"        d[{top + 1}] = d[{top + 1}] * w + 1.0",
            ]
        lines += [f"        d[{place}] = {variable}" for variable, place in entity.lasts.items()]
        lines.append(f"        q[{entity.newest}] = t")
        if entity.decays:
            lines.append("    else:")
        for (variable, half_life), top in entity.decays.items():
            lines += [
                f"        w = 0.5 ** ((newest - t) / {half_life}.0)",
                f"        d[{top}] += {variable} * w",
                f"        d[{top + 1}] += w",
            ]
        return lines

    @staticmethod
    def _write_update(window: WindowPlan) -> list[str]:
        n = window.number
        lines = [f"    if c{n} >= q[{window.head}] - {FULL_TILES}:", f"        i = c{n} % {SLOTS}"]
        for variable, shift in window.shifts.items():
            lines += [f"        if not q[{window.rings[0].total}]:", f"            d[{shift}] = {variable}"]
        for what, ring, variable, shift in window.updates:
            lines += [f"        {line}" for line in _update(what, ring, variable, shift)]
        return [*lines, "    else:", "        late = True"]


def _update(what: str, ring: Ring, variable: str, shift: int) -> list[str]:
    cells = "d" if ring.in_floats else "q"
    places = (f"{cells}[{ring.total}]", f"{cells}[{ring.base} + i]")
    if what in ("minimum", "maximum"):
        sign = "<" if what == "minimum" else ">"
        return [line for p in places for line in (f"if {variable} {sign} {p}:", f"    {p} = {variable}")]
    if what == "distinct":
        return [f"{p} |= {variable}" for p in places]
    value = {
        "count": "1",
        "sum": variable,
        "deviation": f"{variable} - d[{shift}]",
        "square": f"({variable} - d[{shift}]) * ({variable} - d[{shift}])",
    }[what]
    return [f"{p} += {value}" for p in places]


def _misfit(key: str) -> ValueError:
    return ValueError(f"got a profile of {key!r} of another feature set, expected one that this set has made or loaded")


def entity_value(name: str) -> str:
    """The expression of one field of an entity."""
    return f"value_of(event.{name})"


def value_of(value: Any) -> str:
    """An entity's field as text. Raises ValueError for one that would make every key of its profile huge."""
    text = text_of(value)
    if len(text) > MAX_VALUE:
        message = f"got a value of {len(text)} characters, expected {MAX_VALUE} at most in an entity"
        raise ValueError(message)
    return text


def text_of(value: Any) -> str:
    """A category as text."""
    if type(value) is str:  # as most are, and it is asked for each event
        return value
    if isinstance(value, enum.Enum):
        value = value.value
    return value if isinstance(value, str) else str(value)


def bit_of(value: Any) -> int:
    """One of 64 bits for a category. CRC-32, since `hash` differs between processes."""
    return 1 << (zlib.crc32(text_of(value).encode("utf-8", "surrogatepass")) & 63)


def bucket_of(value: Any, buckets: int) -> int:
    """One of the buckets for a category."""
    return zlib.crc32(text_of(value).encode("utf-8", "surrogatepass")) % buckets


def hour_of(moment: datetime | int) -> float:
    """Hours since midnight."""
    if isinstance(moment, datetime):
        return moment.hour + moment.minute / 60 + moment.second / 3600 + moment.microsecond / 3.6e9
    return (moment % _DAY_MS) / 3_600_000


def day_of(moment: datetime | int) -> float:
    """Day of the week, Monday 0."""
    if isinstance(moment, datetime):
        return float(moment.weekday())
    return float((moment // _DAY_MS + 3) % 7)  # 1970-01-01 was a Thursday


def spread(n: int, deviation: float, square: float) -> float:
    """Population standard deviation from the sums of deviations and of their squares."""
    if n < 2:
        return 0.0
    variance = (square - deviation * deviation / n) / n
    return math.sqrt(variance) if variance > 0.0 else 0.0
