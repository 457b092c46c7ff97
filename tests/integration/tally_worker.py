"""A worker for the engine's tests: counts events per key, and answers each event once. Run as a process."""

import sys
from typing import Any

from aiokafka import TopicPartition
from faust.types import StreamT

from streaming.app import StreamApp
from streaming.config import EngineConfig, Guarantee
from streaming.engine import Group
from streaming.tables import StateTable
from streaming.telemetry import NullMetrics
from streaming.unit import Chunk


def create(bootstrap: str, name: str, guarantee: Guarantee) -> StreamApp:
    """An app over `<name>-events`; answers go to `<name>-answers`, counts to its changelog."""
    config = EngineConfig(
        bootstrap=bootstrap,
        app_id=name,
        guarantee=guarantee,
        checkpoint_interval=0.2,
        session_timeout=3.0,
        chunk=200,
    )
    app = StreamApp(config, log_topic=f"{name}-log", metrics=NullMetrics(), web_enabled=False)
    events = f"{name}-events"
    counts: StateTable[int] = StateTable(
        app,
        name="counts",
        partitions=4,
        load=lambda _, data: int(data),
        dump=lambda value: str(value).encode(),
    )
    app.tables.add(counts)
    app.engine.groups.append(Group("events", (events,), (counts,)))

    async def tally(stream: StreamT[Any]) -> None:
        async for chunk in stream:
            await count_chunk(app, name, chunk)

    async def learn(stream: StreamT[Any]) -> None:
        async for lesson in stream:
            await app.engine.follower.applied(lesson.position)

    app.agent(app.topic(events, maxsize=8), name="tally")(tally)
    app.agent(app.engine.lessons, name="learn")(learn)
    return app


async def count_chunk(app: StreamApp, name: str, chunk: Chunk) -> None:
    """Count and answer each record that is still to be done."""
    unit = app.engine.unit_of(chunk.tp)
    records = app.engine.take(unit, chunk)
    for done, record in enumerate(records):
        assert unit is not None
        if not unit.open:
            return
        key = record.key.decode()
        count = unit.state["counts"].get(key, 0) + 1
        unit.state["counts"][key] = count
        unit.emit(f"{name}-answers", unit.partition, record.key, record.value + b":" + str(count).encode())
        unit.mark(TopicPartition(*chunk.tp), record.offset)
        if done % 50 == 49:
            await app.engine.breathe()


if __name__ == "__main__":
    from streaming.app import run

    run(create(sys.argv[1], sys.argv[2], sys.argv[3]))  # type: ignore[arg-type]
