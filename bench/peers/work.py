"""The work itself, in plain Python and River, which every peer calls in its own way: one place, so that it is the same.

    event -> vector (profile as of just before it) -> prediction -> prediction out, vector waits
    label -> the vector that waited -> the model learns it

A peer keeps profiles and waiting vectors where it keeps state. Its model lives in the process: none of them has a place
for one that is not keyed. That saves peers the cost of keeping it, and loses the model with the process.

Events and labels come merged in one topic of one partition, in the order of time. So what a model has learned when it
is asked does not depend on how fast which topic was read, and all peers must give the same predictions, bit for bit.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.peers.workloads import WORKLOADS
from features import Profile
from learning.records import Prediction, encode
from pipelines.definition import Pipeline

EVENT, LABEL = b"e", b"l"  # the first byte of a value says which it is

encode_waiting = msgspec.msgpack.Encoder().encode
decode_waiting = msgspec.msgpack.Decoder(list[float]).decode


class Work:
    """Features and model of one pipeline, as somebody without Headwater would call them.

    Attributes:
        lessons: examples learned, which is the model's version in a prediction.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._events = pipeline.events
        self._labels = pipeline.labels
        self._features = pipeline.feature_set
        self._names = pipeline.feature_set.names
        self._model = pipeline.model()
        self.lessons = 0

    def read(self, value: bytes) -> tuple[bool, str, str, Any]:
        """Whether it is an event, its key, its id, and the event or label itself."""
        is_event = value[:1] == EVENT
        stream = self._events if is_event else self._labels
        item = stream.decode(value[1:])
        return is_event, stream.key_of(item), stream.id_of(item) or "", item

    def vector(self, event: Any, key: str, profiles: MutableMapping[str, Profile]) -> list[float]:
        """Its features; its profile is changed."""
        return self._features.compute(event, key, self._events.time_of(event), profiles)[0]

    def vector_from(self, event: Any, key: str, state: bytes | None) -> tuple[list[float], bytes]:
        """The same where profiles are kept as bytes; with the profile as it is now."""
        profiles = {} if state is None else {key: self._features.load(key, state)}
        vector = self.vector(event, key, profiles)
        return vector, self._features.dump(profiles[key])

    def load(self, key: str, state: bytes) -> Profile:
        """A profile that was dumped."""
        return self._features.load(key, state)

    def dump(self, profile: Profile) -> bytes:
        """A profile as bytes."""
        return self._features.dump(profile)

    def predict(self, event: Any, key: str, name: str, vector: list[float]) -> bytes:
        """The prediction record, the same that Headwater writes."""
        classes = self._model.predict_proba_one(dict(zip(self._names, vector, strict=True)))
        said = classes.get(True, 0.0) if classes else 0.5  # some models say nothing before their first lesson
        time_ms = self._events.time_of(event)
        return encode(Prediction(name, key, time_ms, float(said), self.lessons, vector, self._features.schema))

    def learn(self, label: Any, vector: list[float]) -> None:
        """One lesson."""
        self._model.learn_one(dict(zip(self._names, vector, strict=True)), label.outcome)
        self.lessons += 1


def values_of(pipeline: Pipeline, items: Iterable[Any]) -> Iterator[tuple[bytes, bytes]]:
    """Events and labels as they stand in the merged topic: key and value."""
    for item in items:
        is_event = isinstance(item, pipeline.events.struct)
        stream = pipeline.events if is_event else pipeline.labels
        yield stream.key_of(item).encode(), (EVENT if is_event else LABEL) + stream.encode(item)


class Bare:
    """The bare loop: everything in memory, no safety at all."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._profiles: dict[str, Profile] = {}
        self._waiting: dict[str, list[float]] = {}

    def step(self, value: bytes) -> bytes | None:
        """One event or label: the prediction; None for a label."""
        work = self._work
        is_event, key, name, item = work.read(value)
        if is_event:
            vector = self._waiting[name] = work.vector(item, key, self._profiles)
            return work.predict(item, key, name, vector)
        work.learn(item, self._waiting.pop(name))
        return None


class Meter:
    """Counts what has been done, and measures from the end of the warm-up to the end.

    CPU time is of this process with all its threads, those of librdkafka too.
    """

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._cpu = self._wall = 0.0
        self.events = 0

    def event(self) -> None:
        """One more event is done."""
        self.events += 1
        if self.events == self._warm:
            self._cpu, self._wall = time.process_time(), time.monotonic()

    def report(self, work: Work) -> None:
        """Print what was measured, as JSON in a line; all that is to be counted must be done."""
        cpu, wall = time.process_time() - self._cpu, time.monotonic() - self._wall
        timed = self.events - self._warm
        found = {"events": self.events, "lessons": work.lessons, "timed": timed, "cpu_s": cpu, "wall_s": wall}
        print(json.dumps(found), flush=True)


class Order(NamedTuple):
    """What a peer is told on its command line.

    Attributes:
        workload: which of `WORKLOADS`.
        events: events to do; the topic ends with the last of them.
        lessons: labels among them, each of which is one lesson.
        warm: events of these that are done before the measurement begins.
        folder: an empty folder for the peer's own files; the bare loop's file is in it.
        broker: Kafka's address.
        source: topic to read.
        target: topic to write predictions to.
        guarantee: what the peer is to promise, in its own words, where it has a choice.
    """

    workload: str
    events: int
    lessons: int
    warm: int
    folder: Path
    broker: str
    source: str
    target: str
    guarantee: str

    @property
    def pipeline(self) -> Pipeline:
        """Features and model."""
        return WORKLOADS[self.workload].pipeline


def order() -> Order:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="One run of one system; see bench/peers/__main__.py.")
    parser.add_argument("--workload", choices=WORKLOADS, default="cards")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--lessons", type=int, required=True)
    parser.add_argument("--warm", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--broker", default="")
    parser.add_argument("--source", default="bench")
    parser.add_argument("--target", default="said")
    parser.add_argument("--guarantee", default="")
    return Order(**vars(parser.parse_args()))
