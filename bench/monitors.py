"""What watching costs: the whole loop watched by another process or by the one that predicts, against one unwatched.

    python -m bench.monitors           # into docs/performance.md; some forty minutes
    python -m bench.monitors --quick   # some turns, to the screen

Over two streams. Payments come as many in a second of their own time as a worker does in one of its own, which is what
a busy worker sees live. Years of flights, replayed as fast as it goes, close windows of days all the time, which is
much of what watching costs them. *Unwatched*: no summaries, watch, survey, alarms, reports or page; features,
predictions, joins and lessons are the same. *Beside it*, which is the default: the worker is a pair of processes that
share the cores. *By itself*: role `all`, one process. *Elsewhere*: role `serve`, and who watches has a machine of its
own, so it does not run here; who serves does the same for it.

The machine is shared and gets faster or slower by a third within seconds. So all ways take turns of a second, each with
a Kafka and a backlog of its own, while the processes of the others are stopped. Whoever was stopped finds all that it
does by the clock due at once, checkpoints, metrics and reports, so half a second goes by before a turn is timed. Each
is compared with the unwatched one of the same lap, so what is said is the median of laps, and how sure it is follows
from them. So that nobody is stopped for long, what most people run has rounds of its own, and what is there for
comparison others. Beside the median is what the quicker quarter of the turns says, when others left the machine alone.
An event is done when it is predicted and its example learned, half each, since a worker may do more of the one in a
turn and of the other in the next. Whether who watches keeps up is seen from what it has not read in the end.
"""

import argparse
import asyncio
import itertools
import math
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from agents.loop import Loop
from app import create, worker
from app.settings import load_settings
from bench import page
from bench.loop import fill
from bench.payments import over_days, payments, verdict
from bench.worker import Worker, children
from learning.summary import Collector
from pipelines.definition import Pipeline
from pipelines.flights import Arrival, Departure, flights, history
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig, Role

ITEMS = int(os.environ.get("ITEMS", "3000000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
QUICK_ITEMS = 600_000
SETTLING, TURN = 0.5, 1.0  # seconds of a turn before it is timed, and while it is
STARTED = 20_000  # events before the first turn, and behind the last
# Nobody must take who is stopped for dead.
PATIENT = {"broker.session.timeout.ms": "120000", "transaction.max.timeout.ms": "900000"}
WAITING = {"session_timeout": 60, "request_timeout": 120, "transaction_timeout": 120}
RATE = 5_000  # payments in a second of their time
CUSTOMERS = 2_000
LABEL_MS = 1_000
APP = "bench-monitors"


class Way(NamedTuple):
    """How the loop is watched: the module that runs the worker, and its role."""

    module: str
    role: Role


UNWATCHED, BESIDE = "unwatched", "watched beside it, on the same cores"
WAYS: Mapping[str, Way] = {
    UNWATCHED: Way("bench.monitors", "all"),
    BESIDE: Way("app.cli", "pair"),
    "watched by itself": Way("app.cli", "all"),
    "watched elsewhere": Way("app.cli", "serve"),
}
OTHERS = tuple(name for name in WAYS if name != BESIDE)


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
    """Of a turn, or of some, microseconds for each event.

    Attributes:
        clock: that went by.
        cpu: of the process that predicts.
        watching: CPU of the one beside it.
    """

    clock: float
    cpu: float
    watching: float


class Costs(NamedTuple):
    """Of one way.

    Attributes:
        turns: its turns.
        bare: the unwatched turn of the same lap, for each of them.
        unread: records of the training log that were not watched yet when the last turn of each round ended.
    """

    turns: list[Cost]
    bare: list[Cost]
    unread: list[float]

    def usual(self) -> Cost:
        """What half of the turns take at most, each figure by itself."""
        return Cost(*map(statistics.median, zip(*self.turns, strict=True)))

    def lost(self, field: str) -> list[float]:
        """The share that is lost in each turn, ascending."""
        laps = zip(self.bare, self.turns, strict=True)
        return sorted(1 - getattr(bare, field) / getattr(watched, field) for bare, watched in laps)

    def lost_when_quick(self) -> float:
        """The share of the clock by the quicker quarter of the turns."""
        bare, turns = (statistics.quantiles([turn.clock for turn in side], n=4)[0] for side in (self.bare, self.turns))
        return 1 - bare / turns


def replayed(count: int) -> Stream:
    """Flights and their landings, as many as are wanted: the year, and again, each flight a year later."""
    return Stream("years of flights, replayed", "flights", flights, list(itertools.islice(_years(), count)))


def _years() -> Iterator[Departure | Arrival]:
    year = list(history())
    yield from year
    for number in itertools.count(1):
        later = timedelta(days=365 * number)
        for item in year:
            identity = f"{item.flight_id}+{number}"
            if isinstance(item, Departure):
                yield replace(item, flight_id=identity, departed_at=item.departed_at + later)
            else:
                yield replace(item, flight_id=identity, arrived_at=item.arrived_at + later)


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


class Running:
    """A worker that has begun a backlog on a broker of its own, and is stopped.

    Args:
        stream: the backlog.
        way: how it is watched.
        broker: its own, with the backlog.
    """

    def __init__(self, stream: Stream, way: Way, broker: LocalKafka) -> None:
        self._stream = stream
        self._broker = broker
        self._last = stream.events - STARTED
        self.worker = Worker(
            broker.bootstrap, stream.name, way.module, app_id=APP, snapshot_examples=0, role=way.role, **WAITING
        )
        self.worker.wait("it is well under way", lambda found: found.get("events_total", 0.0) > STARTED)
        self.hold()

    def hold(self) -> None:
        """Stop all its processes, the broker last."""
        for pid in reversed(self._processes()):
            os.kill(pid, signal.SIGSTOP)

    def go(self) -> None:
        """Let them go on, the broker first."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def turn(self) -> Cost | None:
        """Go on for a turn, and stop; None where that came to the end of the backlog."""
        self.go()
        time.sleep(SETTLING)
        done, clock, (cpu, watching) = self._seen()
        time.sleep(TURN)
        done_now, now, (cpu_now, watching_now) = self._seen()
        self.hold()
        if self._found["events_total"] > self._last:
            return None
        spent = (now - clock, cpu_now - cpu, watching_now - watching)
        return Cost(*(each / (done_now - done) * 1e6 for each in spent))

    def unread(self) -> float:
        """Records of the training log that nobody has watched, as it said last."""
        name = f'consumer_lag{{partition="0",topic="{self._stream.pipeline.training_log_topic}"}}'
        return self._found.get(name, 0.0)

    def end(self) -> None:
        """End the worker, and with it the process beside it."""
        self.go()
        self.worker.end()

    def _processes(self) -> list[int]:
        assert self._broker.pid is not None
        pid = self.worker.process.pid
        return [self._broker.pid, pid, *children(pid)]

    def _seen(self) -> tuple[float, float, tuple[float, float]]:
        self._found = self.worker.samples()
        done = (self._found["events_total"] + self._found["training_examples_total"]) / 2
        return done, time.monotonic(), self.worker.cpus()


def section(stream: Stream, rounds: int) -> list[str]:
    """A stream in all ways by turns, with what they say of the throughput.

    Args:
        stream: the stream.
        rounds: how often it begins anew with the usual way beside the unwatched one; the others have one round.
    """
    found = {name: Costs([], [], []) for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        backlog = Path(folder) / "backlog"
        with LocalKafka(backlog, settings=PATIENT) as broker:
            asyncio.run(fill(EngineConfig(bootstrap=broker.bootstrap, app_id=APP), stream.items, stream.pipeline))
        for ways in ((UNWATCHED, BESIDE),) * rounds + (OTHERS,):
            _round(stream, found, ways, backlog)
            said = {name: _share(found[name], "clock") for name in ways}
            print(f"after {len(found[UNWATCHED].turns)} laps: {said}", file=sys.stderr)
    return told(stream, found)


def _round(stream: Stream, found: Mapping[str, Costs], ways: Sequence[str], backlog: Path) -> None:
    """These ways by turns, each with a copy of the backlog, until one comes to the end of its own."""
    with ExitStack() as ended:
        running: dict[str, Running] = {}
        for name in ways:
            folder = Path(ended.enter_context(tempfile.TemporaryDirectory())) / "kafka"
            shutil.copytree(backlog, folder)
            broker = ended.enter_context(LocalKafka(folder, settings=PATIENT))
            running[name] = Running(stream, WAYS[name], broker)
            ended.callback(running[name].end)
        names, chance = list(ways), random.Random(1)
        while True:
            chance.shuffle(names)  # who comes after whom makes a difference
            turns = {name: turn for name in names if (turn := running[name].turn()) is not None}
            if len(turns) < len(names):
                break
            for name, turn in turns.items():
                found[name].turns.append(turn)
                found[name].bare.append(turns[UNWATCHED])
        for name, one in running.items():
            found[name].unread.append(one.unread())


def told(stream: Stream, found: Mapping[str, Costs]) -> list[str]:
    """What the laps say, and in brackets how sure that is."""
    head = ("", "laps", "events/s", "CPU us of an event", "and of the process beside it", "examples it is behind")
    shares = ("costs of the throughput: clock", "of the quicker turns", "CPU of the process that predicts")
    about = (
        f"**{stream.about}**; medians of turns of {TURN:g} s, which are as many as there are laps; in brackets the 95 %"
        " interval of the median"
    )
    return [about, page.rows([*head, *shares], [_row(name, costs) for name, costs in found.items()])]


def _row(name: str, costs: Costs) -> list[str]:
    usual = costs.usual()
    beside = [f"{usual.watching:.0f}", f"{max(costs.unread):.0f}"] if usual.watching else ["", ""]
    shares = ["", "", ""]
    if name != UNWATCHED:
        shares = [_share(costs, "clock"), f"{costs.lost_when_quick():.0%}", _share(costs, "cpu")]
    return [name, f"{len(costs.turns)}", f"{1e6 / usual.clock:,.0f}", f"{usual.cpu:.0f}", *beside, *shares]


def _share(costs: Costs, field: str) -> str:
    """The share that is lost, by lap: its median, and between which laps that lies, by their number alone."""
    lost = costs.lost(field)
    n, half = len(lost), 0.98 * math.sqrt(len(lost))  # 1.96 standard deviations of a binomial count of halves
    low, high = lost[max(math.floor(n / 2 - half), 0)], lost[min(math.ceil(n / 2 + half), n - 1)]
    return f"{statistics.median(lost):.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    """Run, print, and write the page."""
    parser = argparse.ArgumentParser(description="What watching costs a worker.")
    parser.add_argument("--quick", action="store_true", help="some turns, to the screen")
    quick = parser.parse_args().quick
    rounds, items = (1, QUICK_ITEMS) if quick else (ROUNDS, ITEMS)
    sections = [lambda made=made: section(made(items), rounds) for made in (live, replayed)]
    page.report("bench-monitors", sections, "river", "aiokafka", "faust-streaming", keep=not quick)


if __name__ == "__main__":
    unwatched() if "worker" in sys.argv[1:] else main()
