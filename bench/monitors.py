"""What watching costs a worker: the whole loop with everything that watches, against the same without it, in one run.

    python -m bench.monitors

Without: no summaries, watch, survey, alarms, reports or page; features, predictions, joins and lessons are the same.
"""

import itertools
import os
import statistics
import sys
from typing import Any

from agents import label, learn, score
from agents.loop import Loop
from app import create, worker
from app.settings import load_settings
from bench.loop import loop
from learning.summary import Collector
from pipelines.flights import Departure, history

ITEMS = int(os.environ.get("ITEMS", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
WAYS = {"on": "app.cli", "off": "bench.monitors"}
"""The modules that run a worker with everything that watches, and without."""


def unwatched() -> None:
    """Run a worker that nothing watches, as `headwater worker` does one."""

    def nothing(*_: Any, **__: Any) -> None: ...

    for name in ("prediction", "label", "dead_letter", "duplicate"):
        setattr(Collector, name, nothing)
    Loop.opened = nothing  # type: ignore[method-assign]
    create.AGENTS = (score, label, learn)  # type: ignore[assignment]
    worker.run(load_settings())


def main() -> None:
    """Run and print."""
    items = list(itertools.islice(history(), ITEMS))
    events = sum(isinstance(item, Departure) for item in items)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way, module in WAYS.items():
            cpu, _ = loop(items, events, number, module)
            found[way].append(cpu / events * 1e6)
        print(f"round {number + 1}: " + ", ".join(f"{way} {us[-1]:.0f} us" for way, us in found.items()))
    on, off = (statistics.median(us) for us in found.values())
    print(f"{events:,} events, median of {ROUNDS}: {on:.0f} us CPU per event with monitors, {off:.0f} without")
    print(f"watching costs {1 - off / on:.1%} of throughput")


if __name__ == "__main__":
    unwatched() if "worker" in sys.argv[1:] else main()
