"""What watching costs a worker: the whole loop with everything that watches, against the same without it, in one run.

    python -m bench.monitors

Over two streams. Payments come as many in a second of their own time as a worker does in one of its own, which is what
a busy worker sees live. A year of flights, replayed as fast as it goes, closes windows of days all the time, which is
much of what watching costs it. Without: no summaries, watch, survey, alarms, reports or page; features, predictions,
joins and lessons are the same.
"""

import itertools
import os
import statistics
import sys
from operator import itemgetter
from typing import Any, NamedTuple

from agents import label, learn, score
from agents.loop import Loop
from app import create, worker
from app.settings import load_settings
from bench.loop import loop
from bench.payments import over_days, payments, verdict
from learning.summary import Collector
from pipelines.definition import Pipeline
from pipelines.flights import flights, history

ITEMS = int(os.environ.get("ITEMS", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
WAYS = {"on": "app.cli", "off": "bench.monitors"}
"""The modules that run a worker with everything that watches, and without."""
RATE = 5_000  # payments in a second of their time
CUSTOMERS = 2_000
LABEL_MS = 1_000


class Stream(NamedTuple):
    """What a worker gets, and its pipeline by the name that HEADWATER_PIPELINE has."""

    name: str
    pipeline: Pipeline
    items: list[Any]


def replayed() -> Stream:
    """Flights and their landings, as many as are wanted."""
    return Stream("flights", flights, list(itertools.islice(history(), ITEMS)))


def live() -> Stream:
    """Payments, each with its verdict a second later."""
    made = over_days(ITEMS // 2, CUSTOMERS, ITEMS / 2 / RATE / 86_400)
    items = [(one.at, one) for one in made] + [(one.at + LABEL_MS, verdict(one, one.at + LABEL_MS)) for one in made]
    return Stream("bench.payments:payments", payments, [one for _, one in sorted(items, key=itemgetter(0))])


def unwatched() -> None:
    """Run a worker that nothing watches, as `headwater worker` does one."""

    def nothing(*_: Any, **__: Any) -> None: ...

    for name in ("prediction", "label", "dead_letter", "duplicate"):
        setattr(Collector, name, nothing)
    Loop.opened = nothing  # type: ignore[method-assign]
    create.AGENTS = (score, label, learn)  # type: ignore[assignment]
    worker.run(load_settings())


def cost(stream: Stream) -> None:
    """Run a stream both ways, in turn, and print."""
    events = sum(isinstance(item, stream.pipeline.events.struct) for item in stream.items)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way, module in WAYS.items():
            cpu, _ = loop(stream.items, events, number, module, stream.pipeline, stream.name)
            found[way].append(cpu / events * 1e6)
        print(f"round {number + 1}: " + ", ".join(f"{way} {us[-1]:.0f} us" for way, us in found.items()))
    on, off = (statistics.median(us) for us in found.values())
    print(
        f"{events:,} events of {stream.name}, median of {ROUNDS}: {on:.0f} us CPU each with monitors, {off:.0f} without"
    )
    print(f"watching costs {1 - off / on:.1%} of throughput")


def main() -> None:
    """Run and print."""
    for stream in (live(), replayed()):
        cost(stream)


if __name__ == "__main__":
    unwatched() if "worker" in sys.argv[1:] else main()
