"""How long it takes from when an event is due until its prediction is readable, by guarantee and rate.

    python -m bench.latency            # all guarantees and rates, into docs/performance.md; ten minutes
    python -m bench.latency --quick    # a few seconds of each at one rate, to the screen

A worker, a local Kafka, a producer and a reader of committed records, each a process of its own. Labels flow at the
rate of the events, a second behind them, and are learned. Nothing waits for anything (`bench.load`), so there is no
coordinated omission. A worker that only serves is watched by nobody here: on these cores that would be in its way.
"""

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from app.worker import prepared
from bench import page
from bench.echo import Echo, echoing
from bench.load import Plan, Seen, Sender, Sent, watching
from bench.payments import payments
from bench.worker import Worker
from streaming.brokers import LocalKafka
from streaming.config import EngineConfig, Guarantee, Predictions, Role

RATES = (500, 1_000, 5_000)
TARGET_RATE = 1_000
IMMEDIATE, BEYOND_INTERVAL = 0.025, 0.05  # seconds that the 99th percentile may be at that rate
PATIENCE = 30.0  # seconds for predictions beyond three times what the events take
KEPT_UP = 1.5  # the last tenth of the events may wait so many times as long as all do
ECHO: Literal["bare echo"] = "bare echo"


class Mode(NamedTuple):
    """How a worker delivers."""

    guarantee: Guarantee | Literal["bare echo"]
    predictions: Predictions
    interval: float
    role: Role = "all"

    @property
    def target(self) -> float:
        """Seconds that 99 of 100 events should take at the target's rate."""
        return IMMEDIATE if self.predictions == "immediate" else self.interval + BEYOND_INTERVAL


MODES = (
    Mode("exactly_once", "transactional", 0.5),
    Mode("exactly_once", "transactional", 0.1),
    Mode("exactly_once", "immediate", 0.5),
    Mode("at_least_once", "transactional", 0.5),
    Mode("at_least_once", "immediate", 0.5),
    Mode("exactly_once", "transactional", 0.1, "serve"),
    Mode("exactly_once", "immediate", 0.5, "serve"),
    Mode("at_least_once", "immediate", 0.5, "serve"),
    Mode(ECHO, "transactional", 0.5),
    Mode(ECHO, "transactional", 0.1),
    Mode(ECHO, "immediate", 0.5),
)


class Measured(NamedTuple):
    """One mode at one rate.

    Attributes:
        mode: the mode.
        rate: events a second.
        seconds: of each event after the warm-up, in the order in which they were due.
        late: how much later than due the producer sent each of these.
        cores: how much of one the worker used.
    """

    mode: Mode
    rate: int
    seconds: list[float]
    late: list[float]
    cores: float

    @property
    def kept_up(self) -> bool:
        """Whether the last tenth waited about as long as all."""
        last = self.seconds[-max(1, len(self.seconds) // 10) :]
        return statistics.median(last) <= KEPT_UP * statistics.median(self.seconds)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that this share of them does not exceed (nearest rank).

    >>> percentile([3.0, 1.0, 2.0], 0.5), percentile([3.0, 1.0, 2.0], 0.99)
    (2.0, 3.0)
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measured(mode: Mode, rates: Sequence[int], seconds: float, warmup: float) -> list[Measured]:
    """One worker, or echo, on a Kafka of its own, at one rate after the other."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker, ExitStack() as ended:
        config = EngineConfig(bootstrap=broker.bootstrap, app_id="bench-latency")
        asyncio.run(prepared(payments, config))
        system = started(mode, broker.bootstrap, ended)
        made, first = [], 0
        for rate in rates:
            plan = Plan(broker.bootstrap, rate, warmup + seconds, first)
            made.append(asyncio.run(_at_rate(mode, plan, system, warmup)))
            first = plan.numbers.stop
        if isinstance(system, Worker) and not system.samples().get("training_examples_total"):
            message = f"the worker learned none of {first:,} labelled events, so this is not what is to be measured"
            raise RuntimeError(message)
        return made


def started(mode: Mode, bootstrap: str, ended: ExitStack) -> Worker | Echo:
    """What is measured, ready."""
    if mode.guarantee == ECHO:
        return ended.enter_context(echoing(bootstrap, mode.interval if mode.predictions == "transactional" else 0.0))
    settings = {
        "app_id": "bench-latency",
        "guarantee": mode.guarantee,
        "predictions": mode.predictions,
        "checkpoint_interval": mode.interval,
    }
    worker = ended.enter_context(Worker(bootstrap, "bench.payments:payments", role=mode.role, **settings))
    worker.ready()
    return worker


async def _at_rate(mode: Mode, plan: Plan, system: Worker | Echo, warmup: float) -> Measured:
    left = set(plan.numbers)

    def last(one: Seen) -> bool:
        left.discard(one.number)
        return not left

    config = EngineConfig(bootstrap=plan.bootstrap, app_id="bench-latency")
    async with watching(config) as watcher:
        with Sender(plan) as sender:
            plan = await sender.begin()
            cpu, began = system.cpu(), time.monotonic()
            seen = await watcher.until(last, patience=PATIENCE + 3 * plan.seconds)
            cores = (system.cpu() - cpu) / (time.monotonic() - began)
            sent = await sender.sent()
    return result(mode, plan, seen, sent, cores=cores, warmup=warmup)


def result(mode: Mode, plan: Plan, seen: Sequence[Seen], sent: Sent, *, cores: float, warmup: float) -> Measured:
    """What these times of predictions come to. Raises RuntimeError where an event was not sent or has none."""
    at = {one.number: one.at for one in reversed(seen)}  # the first of each
    if not sent.events == sent.labels == len(at) == len(plan.numbers):
        message = (
            f"got {len(at):,} predictions of {sent.events:,} events and {sent.labels:,} labels,"
            f" expected {len(plan.numbers):,} of each"
        )
        raise RuntimeError(message)
    skipped = int(warmup * plan.rate)
    seconds = [at[number] - plan.due(number) for number in plan.numbers[skipped:]]
    return Measured(mode, int(plan.rate), seconds, sent.late[skipped:], cores)


def table(found: Sequence[Measured], command: str) -> str:
    """The section of docs/performance.md."""
    head = ("guarantee", "role", "predictions", "checkpoint s", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "most ms",
            "sent late, p99 ms", "cores", "kept up", "p99 target")  # fmt: skip
    body = []
    for one in found:
        numbers = [percentile(one.seconds, share) for share in (0.5, 0.99, 0.999, 1.0)] + [percentile(one.late, 0.99)]
        said = ""
        if one.rate == TARGET_RATE:
            said = f"{one.mode.target * 1000:.0f}: {'met' if numbers[1] <= one.mode.target else 'missed'}"
        body.append((
            one.mode.guarantee, "" if one.mode.guarantee == ECHO else one.mode.role, one.mode.predictions,
            f"{one.mode.interval:g}", f"{one.rate:,}",
            *(f"{number * 1000:.1f}" for number in numbers), f"{one.cores:.2f}", "yes" if one.kept_up else "no", said,
        ))  # fmt: skip
    return f"{page.caption(command, 'aiokafka')}\n\n{page.rows(head, body, words=3)}"


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each mode and rate, after the warm-up")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="events a second")
    parser.add_argument("--quick", action="store_true", help="little of it, and nothing is written")
    given = parser.parse_args()
    rates, seconds, warmup = ((500,), 3.0, 1.0) if given.quick else (given.rates, given.seconds, given.warmup)
    found: list[Measured] = []
    for mode in MODES:
        found += measured(mode, rates, seconds, warmup)
        print(table(found[-len(rates) :], "bench.latency"), flush=True)
    section = table(found, " ".join(["python -m bench.latency", *sys.argv[1:]]))
    print(section)
    if not given.quick:
        page.write("bench-latency", section)


if __name__ == "__main__":
    main()
