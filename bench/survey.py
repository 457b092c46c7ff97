"""What the survey of the data costs an event, part by part: gathering, its records, and the watch of them. No Kafka.

    python -m bench.survey

Flights as a worker replays them: three days of event time, some 2,800 events, in each cut of its partitions.
"""

import gc
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
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
CUT = 2_800
"""Events between two cuts, and between two reports."""
TURN = 100
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
    """CPU time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def of(self, part: str, call: Callable[[], Any]) -> Any:
        """What the call returns; its time is counted."""
        started = time.process_time()
        result = call()
        self.seconds[part] += time.process_time() - started
        return result


def replay(pairs: list[Seen]) -> dict[str, float]:
    """Seconds by part."""
    costs = Costs()
    collectors = {number: Collector(flights, number, "bench") for number in PARTITIONS.values()}
    survey, decoder, offset = Survey(flights), msgspec.json.Decoder(Summary), 0
    for number, first in enumerate(range(0, len(pairs), CUT)):
        wall_ms = 700 * number
        chunk = pairs[first : first + CUT]
        for turn in (chunk[i : i + TURN] for i in range(0, len(chunk), TURN)):
            for prediction, _ in turn:  # as a worker has just done, so that they are at hand
                encode(prediction)
            costs.of("gather", lambda turn=turn: gather(collectors, turn))
        made = costs.of("cut", lambda at=wall_ms: [each for one in collectors.values() for each in one.take(at, LAG)])
        written = costs.of("encode", lambda made=made: [encode(summary) for summary in made])
        read = costs.of("decode", lambda written=written: [decoder.decode(record) for record in written])
        costs.of("survey", lambda read=read, first=offset: [survey.add(n, each) for n, each in enumerate(read, first)])
        costs.of("report", lambda: encode(report(survey)))
        costs.of("save", survey.dump)
        offset += len(made)
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
