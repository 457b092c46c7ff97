"""What watching the training log costs per example: records one by one against many at once, in one run.

python -m bench.watch
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence

from learning.backtest import backtest
from learning.learn import Learner
from learning.losses import LossAlarm
from learning.records import Example, LogRecord
from learning.scored import Rows
from learning.watch import Watch, frozen_points
from pipelines.flights import flights, history

ITEMS = int(os.environ.get("ITEMS", "60000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
AT_ONCE = 256


class Watched:
    """The log's quality, its losses, and the frozen copy beside the model."""

    def __init__(self, frozen: Learner) -> None:
        self.watch, self.losses, self.frozen = Watch(flights), LossAlarm(flights), frozen
        self.rows = Rows(flights)

    def one(self, offset: int, record: LogRecord) -> None:
        """Take one record."""
        self.losses.observe(offset, record, 0)
        said = self.frozen.predict_frozen(record.features) if isinstance(record, Example) else None
        self.watch.observe(offset, record, said)

    def many(self, offset: int, records: Sequence[LogRecord]) -> None:
        """Take many, the first of which lies at this offset."""
        heard = [self.rows.heard(at, 0, record) for at, record in enumerate(records, offset)]
        scored, last = self.rows.columns([each for each in heard if isinstance(each, bytes)]), offset + len(records) - 1
        self.losses.observe_all(scored, last)
        said = self.frozen.predict_all_with(self.frozen.frozen, scored.vectors)
        values = [value if isinstance(value, float) else None for value in said]
        self.watch.observe_all(scored, frozen_points(values, scored), last)


def one_by_one(log: Sequence[LogRecord], watched: Watched) -> None:
    """Take the log record by record."""
    for offset, record in enumerate(log):
        watched.one(offset, record)


def at_once(log: Sequence[LogRecord], watched: Watched) -> None:
    """Take the log in parts."""
    for offset in range(0, len(log), AT_ONCE):
        watched.many(offset, log[offset : offset + AT_ONCE])


def main() -> None:
    """Run and print."""
    log: list[LogRecord] = []
    backtest(flights, itertools.islice(history(), ITEMS), on_record=lambda _, record: log.append(record))
    learner = Learner(flights)
    for offset, record in enumerate(log[: flights.baseline_examples]):
        learner.apply(offset, record)
    ways: dict[str, Callable[[Sequence[LogRecord], Watched], None]] = {"one by one": one_by_one, "at once": at_once}
    found: dict[str, list[float]] = {way: [] for way in ways}
    reports = []
    for _ in range(ROUNDS):
        for way, run in ways.items():
            watched = Watched(learner)
            started = time.process_time()
            run(log, watched)
            found[way].append((time.process_time() - started) / len(log) * 1e6)
            reports.append(watched.watch.report())
    if any(report != reports[0] for report in reports):
        message = "records at once came to another report than one by one"
        raise SystemExit(message)
    slow, fast = (statistics.median(us) for us in found.values())
    print(f"{len(log):,} records of the log: {slow:.1f} us CPU each one by one, {fast:.1f} at once: {slow / fast:.1f}x")


if __name__ == "__main__":
    main()
