"""What watching costs: the whole loop watched by another process or by the one that predicts, against one unwatched.

    python -m bench.monitors           # into docs/performance.md; a quarter of an hour
    python -m bench.monitors --quick   # one short round, to the screen

Over two streams. Payments come as many in a second of their own time as a worker does in one of its own, which is what
a busy worker sees live. A year of flights, replayed as fast as it goes, closes windows of days all the time, which is
much of what watching costs it. *Unwatched*: no summaries, watch, survey, alarms, reports or page; features,
predictions, joins and lessons are the same. *Beside it*, which is the default: the worker is a pair of processes that
share the cores. *By itself*: role `all`, one process. *Elsewhere*: role `serve`, and who watches has a machine of its
own, so it does not run here; who serves does the same for it.

A run ends when all is predicted, joined and learned, and when the worker's lags say so. That is a second that depends
on no number of events, so there are enough of them for it to be little. One process has then watched all as well; of a
pair, the table says how long the second one takes to.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from agents.loop import Loop
from app import create, worker
from app.settings import load_settings
from bench import page
from bench.loop import EVERY, fill
from bench.payments import over_days, payments, verdict
from bench.worker import Worker, behind
from learning.summary import Collector
from pipelines.definition import Pipeline
from pipelines.flights import flights, history
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig, Role

ITEMS = int(os.environ.get("ITEMS", "400000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
QUICK = 30_000
RATE = 5_000  # payments in a second of their time
CUSTOMERS = 2_000
LABEL_MS = 1_000
APP = "bench-monitors"


class Way(NamedTuple):
    """How the loop is watched: the module that runs the worker, and its role."""

    module: str
    role: Role


UNWATCHED = "unwatched"
WAYS: Mapping[str, Way] = {
    UNWATCHED: Way("bench.monitors", "all"),
    "watched beside it, on the same cores": Way("app.cli", "pair"),
    "watched by itself": Way("app.cli", "all"),
    "watched elsewhere": Way("app.cli", "serve"),
}


class Stream(NamedTuple):
    """What a worker gets, and its pipeline by the name that HEADWATER_PIPELINE has."""

    about: str
    name: str
    pipeline: Pipeline
    items: list[Any]

    @property
    def events(self) -> int:
        """How many are no labels."""
        return sum(isinstance(item, self.pipeline.events.struct) for item in self.items)


class Cost(NamedTuple):
    """Microseconds for each event.

    Attributes:
        clock: until the process that predicts had done all.
        cpu: of the process that predicts.
        watching: CPU of the one beside it, until it had done all.
        after: seconds until that one had, since the first.
    """

    clock: float
    cpu: float
    watching: float
    after: float


def replayed(count: int) -> Stream:
    """Flights and their landings, as many as are wanted."""
    items = list(itertools.islice(history(), count))
    return Stream("a year of flights, replayed", "flights", flights, items)


def live(count: int) -> Stream:
    """Payments, each with its verdict a second later."""
    made = over_days(count // 2, CUSTOMERS, count / 2 / RATE / 86_400)
    items = [(one.at, one) for one in made] + [(one.at + LABEL_MS, verdict(one, one.at + LABEL_MS)) for one in made]
    in_order = [one for _, one in sorted(items, key=itemgetter(0))]
    return Stream(f"payments, {RATE:,} in a second of their time", "bench.payments:payments", payments, in_order)


def unwatched() -> None:
    """Run a worker that nothing watches, as `headwater worker` does one."""

    def nothing(*_: Any, **__: Any) -> None: ...

    for name in ("prediction", "label", "dead_letter", "duplicate"):
        setattr(Collector, name, nothing)
    Loop.opened = nothing  # type: ignore[method-assign]
    create.WATCHING = ()  # type: ignore[assignment]
    worker.run(load_settings())


def cost(stream: Stream, way: Way) -> Cost:
    """What an event costs from a worker's first to its last lesson, on a broker of its own."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        asyncio.run(fill(EngineConfig(bootstrap=broker.bootstrap, app_id=APP), stream.items, stream.pipeline))
        settings = {"app_id": APP, "snapshot_examples": 0, "role": way.role}
        with Worker(broker.bootstrap, stream.name, way.module, **settings) as worker:
            return _timed(stream, worker, beside=way.role == "pair")


def _timed(stream: Stream, worker: Worker, *, beside: bool) -> Cost:
    watched = (stream.pipeline.training_log_topic, stream.pipeline.summaries_topic) if beside else ()
    total = stream.events
    first = worker.wait("it has done an event", lambda found: bool(found.get("events_total")))
    clock, (cpu, watching) = time.monotonic(), worker.cpus()
    worker.wait("it has done all", lambda found: found["events_total"] >= total and not behind(found, watched), EVERY)
    clock, cpu, ended = time.monotonic() - clock, worker.cpus()[0] - cpu, time.monotonic()
    worker.wait("it has watched all", lambda found: not behind(found), EVERY)
    watching = worker.cpus()[1] - watching
    done = total - first["events_total"]
    clock, cpu, watching = (seconds / done * 1e6 for seconds in (clock, cpu, watching))
    return Cost(clock, cpu, watching, time.monotonic() - ended)


def section(stream: Stream, rounds: int) -> list[str]:
    """A stream in all ways, interleaved, with what they say of the throughput."""
    found: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, way in WAYS.items():
            found[name].append(cost(stream, way))
        print(f"round {number + 1}: { ({name: costs[-1] for name, costs in found.items()}) }", file=sys.stderr)
    return told(stream, found)


def told(stream: Stream, found: Mapping[str, Sequence[Cost]]) -> list[str]:
    """What the rounds say: medians, and shares of the same round, since others use the machine now more, now less."""
    rounds = len(found[UNWATCHED])
    head = ("", "events/s", "CPU us of an event", "and of the process beside it", "it is done after, s")
    shares = ("costs of the throughput: clock", "CPU of the process that predicts")
    about = (
        f"**{stream.about}**; {stream.events:,} events, medians of {rounds} rounds; what it costs is by the same"
        " round's worker without, in brackets the least and the most"
    )
    return [about, page.rows([*head, *shares], [_row(name, costs, found[UNWATCHED]) for name, costs in found.items()])]


def _row(name: str, costs: Sequence[Cost], without: Sequence[Cost]) -> list[str]:
    usual = Cost(*map(statistics.median, zip(*costs, strict=True)))
    beside = [f"{usual.watching:.0f}", f"{usual.after:.1f}"] if usual.watching else ["", ""]
    shares = ["", ""] if name == UNWATCHED else [_share(costs, without, field) for field in ("clock", "cpu")]
    return [name, f"{1e6 / usual.clock:,.0f}", f"{usual.cpu:.0f}", *beside, *shares]


def _share(costs: Sequence[Cost], without: Sequence[Cost], field: str) -> str:
    shares = [1 - getattr(of, field) / getattr(by, field) for of, by in zip(without, costs, strict=True)]
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


def main() -> None:
    """Run, print, and write the page."""
    parser = argparse.ArgumentParser(description="What watching costs a worker.")
    parser.add_argument("--quick", action="store_true", help="one short round, to the screen")
    quick = parser.parse_args().quick
    items, rounds = (QUICK, 1) if quick else (ITEMS, ROUNDS)
    sections = [lambda made=made: section(made(items), rounds) for made in (live, replayed)]
    page.report("bench-monitors", sections, "river", "aiokafka", "faust-streaming", keep=not quick)


if __name__ == "__main__":
    unwatched() if "worker" in sys.argv[1:] else main()
