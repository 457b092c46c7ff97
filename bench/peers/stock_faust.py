"""The same on stock Faust: an agent, two tables with changelogs over the memory store, at least once.

After Faust's documentation: an agent over a stream, `table[key] = value`, `await topic.send(...)`. Tuned: raw codecs,
so that nothing is encoded twice; Cython's paths; no web server and no leader topic; a linger and large batches for the
producer, without which every record of a changelog is a request of its own and all takes more than twice as long.
"""

import os
import signal
from typing import Any

import faust

from bench.peers.work import Meter, Order, Work, decode_waiting, encode_waiting, order


def application(told: Order) -> faust.App:
    """The app, whose agent ends the process when all events are done."""
    app = faust.App(
        "stock-faust",
        broker=f"kafka://{told.broker}",
        store="memory://",
        processing_guarantee="at_least_once",
        datadir=str(told.folder),
        key_serializer="raw",
        value_serializer="raw",
        topic_partitions=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        cython_optimizations=True,
        producer_linger=0.1,
        producer_max_batch_size=900_000,
        web_enabled=False,
    )
    source = app.topic(told.source, key_serializer="raw", value_serializer="raw")
    target = app.topic(told.target, key_serializer="raw", value_serializer="raw")
    profiles = app.Table("profiles", partitions=1, key_type=bytes, value_type=bytes)
    waiting = app.Table("waiting", partitions=1, key_type=bytes, value_type=bytes)
    work, meter = Work(told.pipeline), Meter(told.warm)

    @app.agent(source)
    async def loop(stream: Any) -> None:
        async for record in stream.events():
            is_event, key, name, item = work.read(record.value)
            if is_event:
                vector, profiles[record.key] = work.vector_from(item, key, profiles.get(record.key))
                waiting[name.encode()] = encode_waiting(vector)
                await target.send(key=record.key, value=work.predict(item, key, name, vector))
                meter.event()
                if meter.events == told.events:
                    await app.producer.flush()
                    meter.report(work)
                    os.kill(os.getpid(), signal.SIGTERM)
            else:
                work.learn(item, decode_waiting(waiting.pop(name.encode())))

    return app


if __name__ == "__main__":
    faust.Worker(application(order()), loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()
