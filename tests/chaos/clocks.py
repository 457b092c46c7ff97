"""Producers whose clocks are wrong: by hours both ways, by days, and in the events but not on the records."""

import asyncio
import collections
import random
import signal
import zlib
from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from msgspec.structs import replace

from pipelines.definition import Stream
from pipelines.flights import Departure
from tests.chaos.checker import Refused, Truth, Verdict, check, truth
from tests.chaos.run import Run
from tests.chaos.scenario import scenario
from tests.chaos.workers import opened

RATE = 800.0
LOT = 4_000  # items under one setting of the clocks


class Clock(NamedTuple):
    """How wrong a producer's clock is: in what it writes about, and on its records."""

    event: timedelta
    record: timedelta


class Clocks:
    """Ten producers. Which one writes an event follows from its id, and which its label as well."""

    def __init__(self, chance: random.Random, *, far: bool) -> None:
        def wrong(least: float, most: float) -> Clock:
            skew = timedelta(hours=chance.uniform(least, most))
            return Clock(skew, skew)

        right = Clock(timedelta(), timedelta())
        ahead_of_its_record = Clock(timedelta(hours=chance.uniform(25, 40)), timedelta())
        days_ahead = wrong(50, 80) if far else right
        self._clocks = [
            right, right, right, wrong(1, 12), wrong(1, 12), wrong(-12, -1), wrong(-12, -1), wrong(-1, 1),
            ahead_of_its_record, days_ahead,
        ]  # fmt: skip

    def of(self, item: Any) -> Clock:
        """The clock of the producer that writes this item."""
        name = f"{type(item).__name__} {item.flight_id}"
        return self._clocks[zlib.crc32(name.encode()) % len(self._clocks)]


class Skewed:
    """Items as producers with such clocks write them, and the timestamps of their records."""

    def __init__(self) -> None:
        self._stamps: dict[int, int] = {}

    def items(self, items: Iterator[Any], clocks: Clocks) -> Iterator[Any]:
        """The items, each with the time that its producer's clock shows."""
        for item in items:
            clock = clocks.of(item)
            at = "departed_at" if isinstance(item, Departure) else "arrived_at"
            skewed = replace(item, **{at: getattr(item, at) + clock.event})
            self._stamps[id(skewed)] = round((clock.record - clock.event).total_seconds() * 1000)
            yield skewed

    def timestamp(self, item: Any, time_ms: int) -> int:
        """The record's timestamp."""
        return time_ms + self._stamps.pop(id(item))


@scenario("clocks", short=1, share=0.05)
async def clocks(run: Run, items: Iterator[Any], chance: random.Random, size: int) -> Verdict:
    """Producers' clocks are wrong by hours both ways, by days, and in events alone; a worker is killed meanwhile."""
    skewed = Skewed()
    worker = run.start()
    await opened(run, worker)

    async def lot(number: int, *, far: bool = False) -> None:
        clocks = Clocks(chance, far=far)
        await run.load(skewed.items(islice(items, number), clocks), RATE, skewed.timestamp).done()

    for _ in run.rounds(size):
        writing = asyncio.create_task(lot(LOT))
        await asyncio.sleep(chance.uniform(0.0, LOT / RATE))
        run.send(worker, signal.SIGKILL)
        worker = run.start()
        await writing
    hours, _ = await by_the_rules(run)
    await run.settled(hours)
    # What a clock that is days ahead does to waits is told by when, so all that is sure must have been learned by now.
    await lot(LOT // 4, far=True)
    expected, kinds = await by_the_rules(run, sure=hours.labels)
    run.history.note("written", **kinds)
    verdict = check(run.pipeline, expected, await run.settled(expected))
    run.send(worker, signal.SIGTERM)
    code = await run.ended(worker)
    verdict.found("misbehaved", [f"the worker fell or did not stop well: {code}"] if code or run.fallen() else [])
    verdict.found("misbehaved", [f"there was no {kind} in this run" for kind, n in kinds.items() if not n])
    return verdict


class Written:
    """What the topics of events and labels hold that can be used, and what cannot."""

    def __init__(self) -> None:
        self.events: dict[str, tuple[int, int]] = {}  # partition, time
        self.labels: dict[str, int] = {}
        self.in_order: list[Any] = []
        self.refused: set[Refused] = set()
        self.newest: dict[int, int] = collections.defaultdict(int)  # time in each partition

    def take(self, stream: Stream, record: Any, ahead_ms: int) -> None:
        """One record."""
        item = stream.decode(record.value)
        time_ms, name = stream.time_of(item), str(stream.id_of(item))
        if time_ms > record.timestamp + ahead_ms:
            self.refused.add(Refused(record.topic, record.partition, record.offset, "time_ahead"))
            return
        self.newest[record.partition] = max(self.newest[record.partition], time_ms)
        if issubclass(stream.struct, Departure):
            self.events[name] = (record.partition, time_ms)
            self.in_order.append(item)
        else:
            self.labels[name] = time_ms

    def after(self, name: str) -> int:
        """By how many ms the label of an id comes after its event."""
        return self.labels[name] - self.events[name][1]


async def by_the_rules(run: Run, *, sure: Collection[str] = ()) -> tuple[Truth, dict[str, int]]:
    """What there must be by what is documented, from the records as they were written; and how many of what kind.

    1. A record whose time is more than HEADWATER_MAX_AHEAD after its timestamp is a dead letter.
    2. Vectors are those of a run without Kafka over each partition's events in the order of their offsets.
    3. A label is out of time more than the horizon after its event, and, if it is there first, as long before it.
    4. What is in time is learned, unless something in its partition was so far ahead that the wait could be over.

    Args:
        run: the run.
        sure: labels that had been learned before anything was so far ahead.
    """
    pipeline, written = run.pipeline, Written()
    for stream in (pipeline.events, pipeline.labels):
        for record in await run.read(stream.topic):
            written.take(stream, record, run.config.max_ahead_ms)
    horizon = pipeline.horizon_ms
    pairs = written.labels.keys() & written.events.keys()
    possible = {name for name in pairs if written.after(name) <= horizon}
    early = {name for name in possible if written.after(name) < -horizon}
    over = {name for name in possible if written.events[name][1] + horizon < written.newest[written.events[name][0]]}
    learned = (possible - early - over) | set(sure)
    alone = truth(pipeline, written.in_order)
    expected = Truth(
        vectors=alone.vectors,
        labels=frozenset(learned),
        profiles=alone.profiles,
        optional=frozenset(possible - learned),
        refused=frozenset(written.refused),
    )
    kinds = {
        "dead_letter": len(written.refused),
        "label_before_its_event": sum(written.after(name) < 0 for name in possible),
        "label_out_of_time": len(pairs - possible),
        "label_that_must_be_learned": len(learned),
        "label_whose_wait_may_be_over": len(over - learned),
    }
    return expected, kinds
