"""What the survey of the data costs an event, part by part: gathering, its records, and the watch of them. No Kafka.

    python -m bench.survey

Flights as a worker replays them at 4,000 a second: two days of event time in each half second, after which its
partitions are cut.
"""

import gc
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from learning.backtest import backtest
from learning.records import Prediction, encode
from learning.reports import Report, Summary
from learning.summary import Collector
from learning.survey import Survey
from pipelines.flights import Departure, flights, history

ITEMS = int(os.environ.get("ITEMS", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
CUT = 2_000
"""Events between two cuts, and between two reports."""
TURN = 100
"""Events that are gathered at once."""
PARTITIONS = {"EWR": 0, "JFK": 1, "LGA": 2}
LAG = {"departures": 9_000, "arrivals": 9_000}

Seen = tuple[Prediction, Any]


def seen() -> list[Seen]:
    """Predictions of the year's first flights with their events."""
    last: list[Any] = [None]
    pairs: list[Seen] = []

    def through() -> Iterator[Any]:
        for item in itertools.islice(history(), ITEMS):
            if isinstance(item, Departure):
                last[0] = item
            yield item

    backtest(flights, through(), on_prediction=lambda prediction: pairs.append((prediction, last[0])))
    return pairs


class Costs:
    """CPU time by part.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count what is done within."""
        started = time.process_time()
        yield
        self.seconds[part] += time.process_time() - started


def replay(pairs: list[Seen]) -> dict[str, float]:
    """Seconds by part."""
    costs = Costs()
    collectors = {number: Collector(flights, number, "bench") for number in PARTITIONS.values()}
    survey, decoder, offset = Survey(flights), msgspec.json.Decoder(Summary), 0
    for number, first in enumerate(range(0, len(pairs), CUT)):
        for turn in range(first, min(first + CUT, len(pairs)), TURN):
            scored = pairs[turn : min(turn + TURN, first + CUT)]
            for prediction, _ in scored:  # as a worker has just done, so that they are at hand
                encode(prediction)
            with costs.of("gather"):
                gather(collectors, scored)
        with costs.of("cut"):
            made = [each for one in collectors.values() for each in one.take(500 * number, LAG)]
        with costs.of("encode"):
            written = [encode(summary) for summary in made]
        with costs.of("decode"):
            read = [decoder.decode(record) for record in written]
        with costs.of("survey"):
            for summary in read:
                survey.add(offset, summary)
                offset += 1
        with costs.of("report"):
            encode(report(survey))
        with costs.of("save"):
            survey.dump()
    return costs.seconds


def gather(collectors: dict[int, Collector], chunk: list[Seen]) -> None:
    """What score does for each event, and label for each outcome."""
    for prediction, event in chunk:
        collector = collectors[PARTITIONS[event.origin]]
        collector.prediction(prediction, event)
        collector.label("matched")


def report(survey: Survey) -> Report:
    """What a report asks of the survey."""
    return Report(flights.name, 0, coverage=survey.coverage({}), fields=survey.fields(), drift=survey.drift(), units={})


def main() -> None:
    """Run and print."""
    pairs = seen()
    gc.freeze()  # a worker does not hold so many
    rounds = [replay(pairs) for _ in range(ROUNDS)]
    print(f"{len(pairs):,} events, least of {ROUNDS}, us CPU per event")
    least = {part: min(each[part] for each in rounds) / len(pairs) * 1e6 for part in rounds[0]}
    for part, us in least.items():
        print(f"{part:>8} {us:6.2f}")
    print(f"{'all':>8} {sum(least.values()):6.2f}")


if __name__ == "__main__":
    main()
