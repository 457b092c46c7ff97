"""The same on Bytewax with its recovery store on: a stateful step for profiles and waiting vectors, then the model.

After its documentation: Kafka's source and sink, `stateful_batch` with a logic per key, recovery partitions in SQLite,
a snapshot every ten seconds, its default. Tuned: whole batches are mapped at once.

A stateful step takes the items of a batch key by key, so they leave it in another order than they came. The model puts
them back in order by their offsets, or it would not learn the same; that costs under a microsecond an event.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.peers.work import Meter, Order, Work, order
from features import Profile

Read = tuple[int, bool, str, Any]  # offset, whether it is an event, id, the event or label


class OfOneKey(StatefulBatchLogic):  # type: ignore[misc]  # not there where types are checked
    """Profile and waiting vectors of one key."""

    def __init__(self, work: Work, resumed: tuple[str, bytes, dict[str, list[float]]] | None) -> None:
        self._work = work
        self._key = ""
        self._profiles: dict[str, Profile] = {}
        self._waiting: dict[str, list[float]] = {}
        if resumed is not None:
            self._key, profile, self._waiting = resumed
            self._profiles = {self._key: work.load(self._key, profile)}

    def on_batch(self, values: list[tuple[str, Read]]) -> tuple[Iterable[Any], bool]:
        """Events get their vector, labels the one that waited."""
        made = []
        for self._key, (offset, is_event, name, item) in values:
            if is_event:
                vector = self._waiting[name] = self._work.vector(item, self._key, self._profiles)
            else:
                vector = self._waiting.pop(name)
            made.append((offset, (is_event, self._key, name, item, vector)))
        return made, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[str, bytes, dict[str, list[float]]]:
        """What is kept; no vector is ever changed, so a shallow copy will do."""
        return self._key, self._work.dump(self._profiles[self._key]), dict(self._waiting)


class InOrder:
    """The model, asked and taught in the order of offsets."""

    def __init__(self, work: Work, meter: Meter) -> None:
        self._work, self._meter = work, meter
        self._next = 0
        self._early: dict[int, Any] = {}

    def batch(self, items: list[tuple[str, tuple[int, Any]]]) -> Iterator[KafkaSinkMessage[bytes, bytes]]:
        """Whatever has all before it behind it."""
        early = self._early
        early.update(item for _, item in items)
        while self._next in early:
            is_event, key, name, item, vector = early.pop(self._next)
            self._next += 1
            if is_event:
                yield KafkaSinkMessage(key.encode(), self._work.predict(item, key, name, vector))
                self._meter.event()
            else:
                self._work.learn(item, vector)


def run(told: Order) -> None:
    """Until the end of the topic, and the last snapshot."""
    work, meter = Work(told.pipeline), Meter(told.warm)

    def read(batch: list[KafkaSourceMessage[bytes, bytes]]) -> list[tuple[str, tuple[str, Read]]]:
        made = []
        for record in batch:
            is_event, key, name, item = work.read(record.value)
            made.append((key, (key, (record.offset, is_event, name, item))))
        return made

    flow = Dataflow("peer")
    source = op.input("source", flow, KafkaSource([told.broker], [told.source], tail=False))
    keyed = op.flat_map_batch("read", source, read)
    vectors = op.stateful_batch("profiles", keyed, lambda resumed: OfOneKey(work, resumed))
    said = op.flat_map_batch("model", vectors, InOrder(work, meter).batch)
    op.output("target", said, KafkaSink([told.broker], told.target))
    recovery = told.folder / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    cli_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(str(recovery)))
    if meter.events != told.events:
        message = f"got predictions for {meter.events:,} events, expected {told.events:,}"
        raise RuntimeError(message)
    meter.report(work)


if __name__ == "__main__":
    run(order())
