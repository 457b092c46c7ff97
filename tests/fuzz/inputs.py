"""Makes inputs: valid records of a pipeline, mutations of them, and what never was one.

Everything is drawn from one `random.Random`, which may be Hypothesis' own, so that failures shrink.
"""

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, get_args, get_origin

import msgspec
from aiokafka import ConsumerRecord

from learning.records import Control, Correction, Example, encode
from pipelines.definition import Pipeline, Stream
from pipelines.streams import annotations_of, kinds_of

BASE = 1_700_000_000_000  # ms; where the clock of a life begins
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = ("JFK", "LGA", "é", "a+b", "k\x1fk", "\x1f", "x" * 300)
TEXTS = (
    "", "a", "JFK", "\x00watermarks", "\x00", "\x1f", "\ud800", "é\u202e", "null", "NaN", "0", "x" * 999, "y" * 5_000,
    "2013-01-01T12:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z",
)  # fmt: skip
NUMBERS = (
    0, -0.0, 1, -1, 0.1, 1e-320, 1e100, 1.1e100, -1e101, 1e308, -1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**30, BASE, BASE * 1000, 253_402_300_800_000,
)  # fmt: skip
TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b"9" * 400, b"null", b"true", b'"', b"{", b"}", b"[", b"]",
    b"\\", b"\\ud800", b"\\u0000", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b",",
    b":", b"0",
)  # fmt: skip

Row = dict[str, Any]


class Maker:
    """Inputs for one pipeline.

    Args:
        chance: where all choices come from.
        pipeline: whose records they resemble.
        largest: bytes of the largest values; only one in many is so large.
    """

    def __init__(self, chance: Random, pipeline: Pipeline, *, largest: int = 50_000) -> None:
        self.chance = chance
        self.pipeline = pipeline
        self.largest = largest
        self.now = BASE
        self._ids = 0
        self._last = b"{}"

    # -- records

    def events(self, count: int) -> list[tuple[Any, ...]]:
        """Records of the events topic: key, value, timestamp, headers."""
        return [self._record(self.pipeline.events) for _ in range(count)]

    def labels(self, count: int) -> list[tuple[Any, ...]]:
        """Records of the labels topic."""
        return [self._record(self.pipeline.labels) for _ in range(count)]

    def lessons(self, count: int) -> list[tuple[Any, ...]]:
        """Records of the training log that somebody else has written; control records among them."""
        return [self._lesson() for _ in range(count)]

    def _record(self, stream: Stream) -> tuple[Any, ...]:
        c = self.chance
        self.now += c.choice((0, 1, 1_000, 1_000, 1_000, 60_000))
        row = self.row(stream)
        key: Any = str(row.get(stream.key)).encode("utf-8", "replace")
        stamp = self.now
        kind = c.randrange(20)
        if kind < 9:
            value: Any = dumped(row)
        elif kind < 14:
            value = dumped(self.mutated(row, stream))
        elif kind < 18:
            value = self.bent(dumped(row))
        elif kind < 19:
            value = self.junk()
        else:
            value = c.choice((None, b"", b"{}", b"[]", b"null", b"0", b'""', self._last))
        if c.randrange(12) == 0:
            key = c.choice((None, b"", b"\xff", b"JFK", b"k" * 2_000, self.bent(key)))
        if c.randrange(25) == 0:
            stamp = c.choice((-1, 0, 1, stamp - 86_400_001, stamp + 10**12, 2**63 - 1))
        if value:
            self._last = value
        return key, value, stamp, self.headers()

    def headers(self) -> list[tuple[str, bytes | None]]:
        """None for most records."""
        c = self.chance
        if c.randrange(10):
            return []
        names = ("", "trace", "reason", "é", "x" * 300)
        values: tuple[bytes | None, ...] = (b"", None, b"1", b"\xff\x00", b"v" * 3_000)
        if c.randrange(200) == 0:
            values = (b"v" * 190_000, b"w" * 300_000)  # around what a dead letter keeps
        return [(c.choice(names), c.choice(values)) for _ in range(c.randrange(1, 5))]

    # -- valid rows

    def row(self, stream: Stream) -> Row:
        """A valid row, its id one of a few, so that events and labels meet and repeat."""
        c = self.chance
        row = {name: self._value(*kind) for name, kind in _kinds(stream.struct)}
        row[stream.key] = c.choice(KEYS[:4])
        at = self.now + c.randrange(-30_000, 30_000)
        row[stream.time] = at if isinstance(row[stream.time], int) else _iso(at)
        if stream.id is not None:
            if stream is self.pipeline.events:
                self._ids += c.randrange(2)
            number = max(0, self._ids - c.randrange(12) * c.randrange(2))
            row[stream.id] = number if isinstance(row[stream.id], int) else f"id{number}"
        return row

    def _value(self, choices: tuple[Any, ...], kinds: frozenset[Any]) -> Any:
        c = self.chance
        if choices:
            return c.choice(choices)
        if bool in kinds:
            return bool(c.randrange(2))
        if float in kinds:
            return c.choice((1.0, 0.0, 12.5, 100.0, round(c.random() * 90, 3)))
        if int in kinds:
            return c.randrange(20)
        if datetime in kinds:
            return _iso(self.now)
        return c.choice(("a", "b", "AA", "LAX", "c"))

    # -- mutations

    def mutated(self, row: Row, stream: Stream) -> Row:
        """The row with a field or two that are not as they should be."""
        c, row = self.chance, dict(row)
        for _ in range(c.randrange(1, 3)):
            name = c.choice((*row, stream.key, stream.time, stream.id or stream.key)) if row else "x"
            kind = c.randrange(8)
            if kind == 0:
                row.pop(name, None)
            elif kind == 1:
                row[c.choice(TEXTS)] = self.anything(2)
            elif kind == 2:
                other = c.choice((*row, name))
                row[name], row[other] = row.get(other), row.get(name)
            elif kind == 3:
                row[name] = c.choice(TEXTS)
            elif kind == 4:
                row[name] = c.choice(NUMBERS)
            elif kind == 5:
                row[name] = self._limit_time(isinstance(row.get(stream.time), int))
            else:
                row[name] = self.anything(3)
        return row

    def _limit_time(self, number: bool) -> Any:
        c = self.chance
        at = c.choice((-1, 0, 1, self.now + 86_400_000, self.now + 86_400_001, self.now - 10**10, 253_402_300_799_999))
        return at if number else _iso(at)

    def anything(self, depth: int) -> Any:
        """Any JSON."""
        c = self.chance
        kind = c.randrange(10 if depth else 7)
        if kind < 3:
            return c.choice(NUMBERS)
        if kind < 5:
            return c.choice(TEXTS)
        if kind < 7:
            return c.choice((None, True, False))
        if kind == 7:
            return [self.anything(depth - 1) for _ in range(c.randrange(4))]
        return {c.choice(TEXTS): self.anything(depth - 1) for _ in range(c.randrange(4))}

    def bent(self, data: bytes) -> bytes:
        """The bytes after an accident or three."""
        c = self.chance
        for _ in range(c.choice((1, 1, 1, 2, 3))):
            at = c.randrange(len(data) + 1)
            kind = c.randrange(9)
            if kind == 0 and data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << c.randrange(8))]) + data[at + 1 :]
            elif kind == 1:
                data = data[:at]
            elif kind == 2:
                data = data[:at] + c.choice(TOKENS) + data[at:]
            elif kind == 3:
                data = data[:at] + data[min(len(data), at + c.randrange(1, 9)) :]
            elif kind == 4:
                data = data[:at] + self._last[c.randrange(len(self._last) + 1) :]
            elif kind == 5 and data.startswith(b"{"):
                data = b"{" + data[1:].rstrip(b"}") + b"," + data[1:]  # every name twice
            elif kind == 6:
                data = self._wrapped(data)
            elif kind == 7:
                data = data[:at] + data[at:].replace(c.choice((b'"', b":", b"1", b"0")), c.choice(TOKENS), 1)
            else:
                data = c.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\n\x00", b"")) + data
        return data

    def _wrapped(self, data: bytes) -> bytes:
        c = self.chance
        deep = c.choice((2, 50, 500, 3_000))
        if c.randrange(2):
            return b"[" * deep + data + b"]" * deep
        return data.replace(b"}", b',"deep":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}", 1)

    def junk(self) -> bytes:
        """Bytes that were never a record."""
        c = self.chance
        kind = c.randrange(5)
        if kind == 0:
            return c.randbytes(c.randrange(1, 60))
        if kind == 1:
            return b"".join(c.choice(TOKENS) for _ in range(c.randrange(1, 12)))
        if kind == 2:
            return dumped(self.anything(4))
        if kind == 3:
            size = c.randrange(1, self.largest) if c.randrange(20) == 0 else 500
            return c.choice((b"[" * size, b'{"a":' * size, b'"' + b"x" * size + b'"', b"1" * size, b"\x80" * size))
        return c.choice((b"\xef\xbb\xbf{}", b"{} {}", b"[NaN]", b'{"":0,"":1}', b"\xff", b"\x00" * 20))

    # -- the training log

    def _lesson(self) -> tuple[Any, ...]:
        c = self.chance
        kind = c.randrange(12)
        value: bytes | None
        if kind < 4:
            value = encode(self.example())
        elif kind < 5:
            value = encode(Correction("id1", "JFK", self.now, self.now, self._outcome(), self._outcome()))
        elif kind < 8:
            value = self.control()
        elif kind < 10:
            row = msgspec.to_builtins(self.example())
            row[c.choice(tuple(row))] = self.anything(2)
            if c.randrange(3) == 0:
                row.pop(c.choice(tuple(row)))
            value = dumped({"type": "example", **row})
        elif kind < 11:
            value = self.bent(encode(self.example()))
        else:
            value = c.choice((None, b"", b"{}", b'{"type":"control"}', b'{"type":"x"}', self.junk()))
        return c.choice((b"k", None)), value, self.now, self.headers()

    def example(self) -> Example:
        """An example that the worker could have written, or one with features or an outcome of another kind."""
        c, p = self.chance, self.pipeline
        names = p.feature_set.names
        features = [c.choice((0.0, 1.0, 2.5, c.random())) for _ in names]
        if c.randrange(6) == 0:
            features = [float(c.choice((*NUMBERS[:11], 1e308, 1e200))) for _ in range(c.choice((0, 1, len(names), 40)))]
        outcome = self._outcome() if c.randrange(5) else c.choice((True, "text", 1.5, -1e308, ""))
        prediction: Any = {"multiclass": {"a": 0.25, "b": 0.75}}.get(p.task, 0.5)
        if c.randrange(8) == 0:
            prediction = c.choice((0.0, 1.0, -1e308, 1e308, {}, {"a": 1e308}, {"é": -1.0}))
        schema = p.feature_set.schema if c.randrange(8) else "0" * 16
        source = c.choice(("label", "label", "label", "expiry", "correction", ""))
        return Example("id1", "JFK", self.now, self.now + 5, prediction, 0, features, schema, outcome, source)

    def _outcome(self) -> Any:
        c = self.chance
        return {"regression": c.choice((1.0, 2.5, -3.0)), "multiclass": c.choice(("a", "b", "c"))}.get(
            self.pipeline.task, bool(c.randrange(2))
        )

    def control(self) -> bytes:
        """What somebody says, or what no command would."""
        c = self.chance
        action: Any = c.choice(("freeze", "thaw", "rollback", "rollback"))
        to = c.randrange(60) if action == "rollback" or c.randrange(4) == 0 else None
        data = encode(Control(action, self.now, "ann", "é", to))
        if c.randrange(5):
            return data
        row = {**json.loads(data), c.choice(("action", "to", "by", "time_ms", "type")): self.anything(1)}
        return dumped(row) if c.randrange(2) else self.bent(data)


@functools.cache
def _kinds(struct: type[Any]) -> list[tuple[str, tuple[tuple[Any, ...], frozenset[Any]]]]:
    """Each field with the values that it is limited to, if it is, and the types that it can have."""
    return [
        (name, (get_args(annotation) if get_origin(annotation) is Literal else (), kinds_of(annotation)))
        for name, annotation in annotations_of(struct).items()
    ]


def dumped(row: Any) -> bytes:
    """JSON as careless programs write it: NaN and Infinity as such, and lone surrogates, escaped or as bytes."""
    text = json.dumps(row, ensure_ascii=len(str(row)) % 2 == 0)
    return text.encode("utf-8", "surrogatepass")


def _iso(at: int) -> str:
    return (EPOCH + timedelta(milliseconds=at)).isoformat()


def record(topic: str, offset: int, parts: Sequence[Any]) -> "ConsumerRecord[Any, Any]":
    """What a consumer would deliver."""
    key, value, stamp, headers = parts
    return ConsumerRecord(
        topic, 0, offset, stamp, 0, key, value, None, len(key or b""), len(value or b""), tuple(headers)
    )
